"""What `train.py` does where there is no GPU: CPU seconds of one thread, step by step in turn.

The vocabulary is small, so that a loop's own cost shows beside the model's products. Dropout is
nowhere; all have the same sizes, batches and optimizer settings. Ratios are taken within a round.
"""

import json
import logging
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import train_loops
from torch import distributed as dist

from training import flops, loop, tokens, zero
from training.config import ModelConfig, TrainingConfig
from training.engine import Batch
from training.model import build
from training.run import Run

SIZES = ModelConfig(layers=20, heads=4, width=128, context=128, vocabulary=512)
STEPS = 20
"""Of each round."""
EVERY = 4
"""Of so many steps the eager one does one."""
WINDOWS = 4
"""Of a step: one pass."""
ENGINE, LOOP, WAIT = 0.95, 1.1, 0.01
"""Goals: ratios of tokens per CPU second, a share of the time."""
PLAIN, OURS, WHOLE = "plain PyTorch loop", "DeepSpeed engine", "webtext, whole loop"
SDPA, EAGER = "transformers, sdpa", "transformers, eager"
Stepped = Callable[[Batch], None]


def config(steps: int) -> TrainingConfig:
    """What all train."""
    return TrainingConfig(
        model=SIZES, zero_stage=0, batch_tokens=WINDOWS * SIZES.context, steps=steps,
        warmup_steps=0, learning_rate=6e-4, precision="fp32", evaluate_every=0,
        checkpoint_every=1_000_000,
    )  # fmt: skip


def main(rounds: int) -> int:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    logging.getLogger("training").setLevel(logging.ERROR)  # epochs of random tokens
    os.environ["LOCAL_RANK"] = "0"  # which DeepSpeed asks for
    dist.init_process_group("gloo", "tcp://127.0.0.1:0", rank=0, world_size=1)
    zero.join(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        run = made(Path(name), rounds)
        peers = {PLAIN: plain(), OURS: engine(), SDPA: theirs("sdpa"), EAGER: theirs("eager")}
        for step in (*peers.values(), lambda batch: run.engine.step([batch], 1, 0.0)):
            step(loop.share(run, 0)[0])
        found = in_turn(peers, run, rounds)
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").open()]
    dist.destroy_process_group()
    wait = sum(line["data_wait_s"] for line in lines) / sum(line["seconds"] for line in lines)
    return tell(found, wait)


def made(folder: Path, rounds: int) -> Run:
    """A run on random tokens."""
    random = np.random.default_rng(1)
    for split in ("train", "validation"):
        ids = random.integers(0, SIZES.vocabulary, 500_000, dtype=np.uint16).astype("<u2")
        ids.tofile(folder / f"00000.{split}.bin")
    settings, device = config(rounds * STEPS), torch.device("cpu")
    return Run(
        config=settings,
        engine=zero.ZeroEngine(settings, build(SIZES, 1), device, WINDOWS),
        train=tokens.open_split(folder, "train"),
        validation=tokens.open_split(folder, "validation"),
        tokens_folder=folder,
        folder=folder / "run",
        micro=WINDOWS,
        peak=flops.measured_peak(device, "fp32"),
    )


def in_turn(peers: dict[str, Stepped], run: Run, rounds: int) -> list[dict[str, float]]:
    """CPU seconds of a step of each peer and of our loop, by rounds.

    After each step of our loop the peers make theirs. What is not theirs is our loop's; what comes
    after its last step, the checkpoint, is shared out over all steps.
    """
    seconds: list[Counter[str]] = [Counter() for _ in range(rounds)]
    steps: list[Counter[str]] = [Counter() for _ in range(rounds)]
    last = time.process_time()

    def progress(line: loop.Line) -> None:
        nonlocal last
        number = line["step"] - 1
        (batch,) = loop.share(run, number)
        peers_now = [name for name in peers if name != EAGER or number % EVERY == 0]
        shift = number % len(peers_now)
        add(number, WHOLE)
        for name in peers_now[shift:] + peers_now[:shift]:
            last = time.process_time()
            peers[name](batch)
            add(number, name)
        last = time.process_time()

    def add(number: int, name: str) -> None:
        seconds[number // STEPS][name] += time.process_time() - last
        steps[number // STEPS][name] += 1

    loop.train(run, progress)
    after = (time.process_time() - last) / rounds
    for each in seconds:
        each[WHOLE] += after
    return [
        {name: one[name] / count[name] for name in count}
        for one, count in zip(seconds, steps, strict=True)
    ]


def plain() -> Stepped:
    """A loop over our model class, as one writes it in PyTorch."""
    model, settings = build(SIZES, 1), config(STEPS)
    optimizer = train_loops.adamw(settings, list(model.parameters()), torch.device("cpu"))

    def step(batch: Batch) -> None:
        inputs, targets = batch
        loss = model(inputs, targets) / targets.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def engine() -> Stepped:
    """Our engine on DeepSpeed at stage 0."""
    settings = config(STEPS)
    made = zero.ZeroEngine(settings, build(SIZES, 1), torch.device("cpu"), WINDOWS)

    def step(batch: Batch) -> None:
        made.step([batch], settings.batch_tokens, settings.learning_rate)

    return step


def theirs(attention: str) -> Stepped:
    """transformers' model, as its users train it without that library's Trainer."""
    model, settings = train_loops.transformers_model(SIZES, attention), config(STEPS)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
    )

    def step(batch: Batch) -> None:
        inputs, _ = batch
        loss = model(input_ids=inputs, labels=inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def tell(found: list[dict[str, float]], wait: float) -> int:
    """The table; whether a goal is missed."""
    tokens_a_step = WINDOWS * SIZES.context
    print(
        f"{SIZES.parameters() / 1e6:.1f} M parameters, {WINDOWS} windows of {SIZES.context} a "
        f"step, {STEPS} steps a round, median of {len(found)} rounds, one thread, torch "
        f"{torch.__version__}"
    )
    print(f"{'':24}{'tokens/CPU s':>14}{'':16}{'ms a step':>10}")
    for name in (PLAIN, OURS, WHOLE, SDPA, EAGER):
        rates = sorted(tokens_a_step / seconds[name] for seconds in found)
        middle, spread = statistics.median(rates), f"[{rates[0]:,.0f}-{rates[-1]:,.0f}]"
        step = tokens_a_step / middle * 1000
        print(f"{name:24}{middle:>14,.0f}{spread:>16}{step:>10.0f}")
    missed = [
        _ratio(found, OURS, PLAIN, ENGINE),
        _ratio(found, WHOLE, SDPA, LOOP),
        _ratio(found, WHOLE, EAGER, None),
    ]
    print(f"data wait: {wait:.2%} of the time (goal: below {WAIT:.0%})")
    return int(any(missed) or wait >= WAIT)


def _ratio(found: list[dict[str, float]], one: str, other: str, goal: float | None) -> bool:
    """Print how many times as quick `one` is; whether the goal is missed."""
    ratios = sorted(seconds[other] / seconds[one] for seconds in found)
    middle = statistics.median(ratios)
    wanted = f"  (goal: at least {goal})" if goal else ""
    print(f"{one} / {other}: {middle:.3f} [{ratios[0]:.3f}-{ratios[-1]:.3f}]{wanted}")
    return goal is not None and middle < goal
