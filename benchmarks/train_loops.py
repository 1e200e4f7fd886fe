"""The loops that `train.py` measures on a GPU, each to be run in a process of its own.

`webtext` is the program's own loop with its duties (data, metrics, guard), but for checkpoints.
`transformers` is that library's GPT2LMHeadModel under the same DeepSpeed settings, as its users
write it. `nanoGPT's way` is what that project publishes, written anew: one compiled model, logits
and cross entropy whole, PyTorch's fused AdamW. All see the same windows in the same number.
Shapes: B windows, T tokens, C width, V vocabulary.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from training import batches, flops, loader, loop, tokens, zero
from training.config import ModelConfig, TrainingConfig
from training.model import build
from training.run import Run
from training.schedule import learning_rate


@dataclass
class Watch:
    """When a loop ends, and how long its steps took."""

    ends: float
    """Of time.perf_counter: the first step that is finished after it is the last."""
    most: int
    """Steps after which it is enough."""
    seconds: list[float] = field(default_factory=list)
    last: float = field(default_factory=time.perf_counter)

    def enough(self) -> bool:
        """A step is finished; whether it was the last."""
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now
        return len(self.seconds) >= self.most or now >= self.ends


class Enough(Exception):
    """Leaves our loop where it would go on."""


@dataclass(frozen=True)
class Setting:
    """What is trained on what."""

    config: TrainingConfig
    tokens: Path
    folder: Path
    """Where a run may write."""
    device: torch.device
    micro: int


Loop = Callable[[Setting, Watch], Callable[[], float]]
"""Trains until enough; gives a function that measures the validation loss, in nats a token."""


def webtext(setting: Setting, watch: Watch) -> Callable[[], float]:
    """Our loop. It is left by an error, as an orderly end saves: gigabytes for the large models."""
    config, device = setting.config, setting.device
    torch.set_float32_matmul_precision("highest")  # as training.rank has it
    model = build(config.sizes(), config.seed)
    run = Run(
        config=config,
        engine=zero.ZeroEngine(config, model, device, setting.micro),
        train=tokens.open_split(setting.tokens, "train"),
        validation=tokens.open_split(setting.tokens, "validation"),
        tokens_folder=setting.tokens,
        folder=setting.folder,
        micro=setting.micro,
        peak=flops.measured_peak(device, config.precision),
    )

    def progress(_: loop.Line) -> None:
        if watch.enough():
            raise Enough

    watch.last = time.perf_counter()
    with contextlib.suppress(Enough):
        loop.train(run, progress)
    return lambda: run.engine.evaluate(loop.validation_share(run))


def transformers(setting: Setting, watch: Watch, compiled: bool = False) -> Callable[[], float]:
    """transformers' model under DeepSpeed."""
    import deepspeed

    config, device = setting.config, setting.device
    model = transformers_model(config.sizes()).to(device)
    settings = zero.settings(config, 1, setting.micro) | {"gradient_clipping": config.clip}
    weights = list(model.parameters())
    engine, _, _, _ = deepspeed.initialize(
        model=model, optimizer=adamw(config, weights, device), config=settings
    )
    if compiled:
        engine.module.compile(dynamic=False)
    watch.last = time.perf_counter()
    for step, parts in enumerate(windows(setting)):
        set_rate(engine.optimizer, step, config)
        losses = []
        for ids in (part[:, :-1] for part in parts):
            loss = engine(input_ids=ids, labels=ids, use_cache=False).loss
            engine.backward(loss)
            engine.step()
            losses.append(loss.detach())
        finite(torch.stack(losses).mean())
        if watch.enough():
            break

    def evaluate() -> float:
        engine.eval()
        logits = lambda ids: engine(input_ids=ids, use_cache=False).logits  # noqa: E731
        return validation(setting, lambda x, y: cross_entropy(logits(x), y))

    return evaluate


def transformers_compiled(setting: Setting, watch: Watch) -> Callable[[], float]:
    """The same, compiled."""
    return transformers(setting, watch, compiled=True)


def nanogpt(setting: Setting, watch: Watch) -> Callable[[], float]:
    """nanoGPT's way."""
    config, device = setting.config, setting.device
    torch.set_float32_matmul_precision("high")  # it allows TF32
    torch.manual_seed(config.seed)
    model = Whole(config.sizes()).to(device)
    weights = list(model.parameters())
    optimizer = adamw(config, weights, device)
    if config.compile:
        model.compile()
    cast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")
    watch.last = time.perf_counter()
    for step, parts in enumerate(windows(setting)):
        set_rate(optimizer, step, config)
        losses = []
        for ids in parts:
            with cast:
                loss = cross_entropy(model(ids[:, :-1]), ids[:, 1:]) / len(parts)
            loss.backward()
            losses.append(loss.detach())
        nn.utils.clip_grad_norm_(weights, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        finite(torch.stack(losses).sum())
        if watch.enough():
            break

    def evaluate() -> float:
        with cast:
            return validation(setting, lambda x, y: cross_entropy(model(x), y))

    return evaluate


LOOPS: dict[str, Loop] = {
    "webtext": webtext,
    "nanoGPT's way": nanogpt,
    "transformers": transformers,
    "transformers, compiled": transformers_compiled,
}


class Block(nn.Module):
    """Norm, attention, norm, MLP."""

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__()
        width, self.heads = sizes.width, sizes.heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        parts = self.look(self.before(x)).split(C, dim=2)
        q, k, v = (part.view(B, T, self.heads, C // self.heads).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(seen.transpose(1, 2).reshape(B, T, C))
        return x + self.narrow(F.gelu(self.widen(self.between(x))))


class Whole(nn.Module):
    """GPT-2 with the exact GELU, as nanoGPT has it, and a vocabulary of whole 64s."""

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(sizes.padded_vocabulary(), sizes.width)
        self.places = nn.Embedding(sizes.context, sizes.width)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.last = nn.LayerNorm(sizes.width)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                ends = name.endswith(("mix.weight", "narrow.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * sizes.layers) if ends else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.size(1), device=ids.device))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.last(x), self.words.weight)


def transformers_model(sizes: ModelConfig, attention: str = "sdpa") -> Any:
    """GPT2LMHeadModel of these sizes, without dropout as all others."""
    from transformers import GPT2Config, GPT2LMHeadModel

    none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(
        vocab_size=sizes.vocabulary, n_positions=sizes.context, n_embd=sizes.width,
        n_layer=sizes.layers, n_head=sizes.heads, attn_implementation=attention, **none,
    )  # fmt: skip
    return GPT2LMHeadModel(config).train()


def adamw(
    config: TrainingConfig, weights: list[nn.Parameter], device: torch.device
) -> torch.optim.AdamW:
    """Fused AdamW that decays matrices."""
    groups = [
        {"params": [w for w in weights if w.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
    ]
    betas = config.beta1, config.beta2
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


def set_rate(optimizer: Any, step: int, config: TrainingConfig) -> None:
    """The same learning rate as ours."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)


def finite(loss: Tensor) -> None:
    """Wait for the step, as whoever logs its loss does."""
    if not math.isfinite(loss.item()):
        raise ArithmeticError(f"the loss is {loss.item()}")


def windows(setting: Setting) -> Iterator[list[Tensor]]:
    """Each step's windows as ids, B by T + 1, in forward passes; made ahead, as ours are."""
    config, train = setting.config, tokens.open_split(setting.tokens, "train")
    context = config.sizes().context

    def make(step: int) -> list[Any]:
        count = train.windows(context)
        numbers = batches.step_windows(config.seed, step, config.batch_windows(), count)
        found = []
        for part in np.array_split(numbers, -(-len(numbers) // setting.micro)):
            ids = torch.from_numpy(batches.read(train, part, context))
            found.append(ids.pin_memory() if setting.device.type == "cuda" else ids)
        return found

    with loader.Ahead(make) as ahead:
        for step in range(config.steps):
            made = ahead.take(step, step + 1)
            yield [ids.to(setting.device, non_blocking=True) for ids in made]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over all tokens; logits whole."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def validation(setting: Setting, mean: Callable[[Tensor, Tensor], Tensor]) -> float:
    """The loss of the first windows of the validation split: those of our loop."""
    config, split = setting.config, tokens.open_split(setting.tokens, "validation")
    context = config.sizes().context
    numbers = range(min(config.evaluate_windows, split.windows(context)))
    total = 0.0
    with torch.no_grad():
        for begin in range(0, len(numbers), setting.micro):
            part = numbers[begin : begin + setting.micro]
            ids = torch.from_numpy(batches.read(split, part, context)).to(setting.device)
            total += mean(ids[:, :-1], ids[:, 1:]).item() * len(part)
    return total / len(numbers)


def measure(
    who: str, setting: Setting, began: float, ends: float, most: int, look: bool
) -> dict[str, Any]:
    """One measurement: speed without the warm-up, memory, and the loss where `look`. `began`: of
    time.perf_counter, the start of the process."""
    device = setting.device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    os.environ["LOCAL_RANK"] = "0"  # which DeepSpeed asks for
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", "tcp://127.0.0.1:0", rank=0, world_size=1
    )
    zero.join(device)
    watch = Watch(ends, most)
    try:
        evaluate = LOOPS[who](setting, watch)
    except (torch.OutOfMemoryError, loop.OutOfMemory):
        return {"full": True}
    found: dict[str, Any] = {
        "micro": setting.micro,
        "steps": len(watch.seconds),
        "seconds": watch.seconds,
        "until_first_step_s": watch.last - sum(watch.seconds[1:]) - began,
        "memory_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        "peak": flops.measured_peak(device, setting.config.precision),
        "published_peak": flops.published_peak(device),
        "flops_a_token": flops.per_token(setting.config.sizes()),
        "settings": msgspec.to_builtins(setting.config),
    }
    if look:
        found["validation_loss"] = evaluate()
    return found
