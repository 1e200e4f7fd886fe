"""What the loop needs from a trainer (Engine), and the plainest one: torch on one device.

A step's loss and gradient are sums over its tokens, divided by their number, whichever engine,
however many ranks, and however unevenly the tokens lie on them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from training.config import TrainingConfig
from training.cross_entropy import IGNORED
from training.model import GPT2, load_weights, own_weights, trimmed

Batch = tuple[Tensor, Tensor]
"""Inputs and targets: two tables of ids, a window a row, the second one token further on. All of a
run are of one shape; targets that only fill it up are IGNORED."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of each weight, by torch's names; the third, its count of steps, is our own."""


@dataclass(frozen=True)
class Step:
    """What one optimizer step did."""

    loss: float
    """Mean over all tokens of all ranks, before the step, in nats."""
    grad_norm: float
    """Of the whole gradient, before clipping."""
    applied: bool = True
    """Whether the weights moved; they do not where the gradient is not finite."""


class Engine(Protocol):
    """A model with its optimizer on this rank. All ranks must make the same calls."""

    rank: int
    world: int

    def step(self, batches: Sequence[Batch], tokens: int, learning_rate: float) -> Step:
        """One optimizer step on this rank's share of a batch of `tokens` tokens."""

    def evaluate(self, batches: Sequence[Batch]) -> float:
        """Mean loss over the tokens of all ranks' batches, without learning."""

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """All that a checkpoint needs: `weights/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME` for each
        weight, whole, in fp32, without padding, in the same order on every rank. A tensor is good
        until the next one is asked for."""

    def load(self, read: Callable[[str], Tensor], applied: int) -> None:
        """Take up what `state` gave, of any engine, after `applied` optimizer steps."""

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank."""

    def barrier(self) -> None:
        """Wait until every rank is here."""


class PlainEngine:
    """Engine in plain torch, on one device, alone: what others are compared with."""

    rank = 0
    world = 1

    def __init__(self, config: TrainingConfig, model: GPT2, device: torch.device) -> None:
        self._config, self._device = config, device
        self._model = prepared(config, model.to(device))
        self._optimizer = adamw(config, self._model)
        remember(self._optimizer, self._model.parameters(), 0)

    def step(self, batches: Sequence[Batch], tokens: int, learning_rate: float) -> Step:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad(set_to_none=True)
        losses = []
        for batch in batches:
            loss = self._loss(batch)
            (loss / tokens).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        norm = float(clipped(self._model.parameters(), self._config.clip))
        if applied := math.isfinite(norm):
            self._optimizer.step()
        return Step(float(summed(losses)) / tokens, norm, applied)

    def evaluate(self, batches: Sequence[Batch]) -> float:
        with torch.no_grad():
            loss = summed([self._loss(batch) for batch in batches])
        return float(loss) / counted(batches)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in own_weights(self._model).items():
            yield f"weights/{name}", weight
        for name, weight in self._model.named_parameters():
            for moment in MOMENTS:
                kept = self._optimizer.state[weight][moment]
                yield f"{moment}/{name}", trimmed(name, kept, self._model.sizes)

    def load(self, read: Callable[[str], Tensor], applied: int) -> None:
        names = [name for name, _ in self._model.named_parameters()]
        load_weights(self._model, {name: read(f"weights/{name}") for name in names})
        remember(self._optimizer, self._model.parameters(), applied)
        for name, weight in self._model.named_parameters():
            for moment in MOMENTS:
                kept = self._optimizer.state[weight][moment]
                trimmed(name, kept, self._model.sizes).copy_(read(f"{moment}/{name}"))

    def any(self, here: bool) -> bool:
        return here

    def barrier(self) -> None:
        return None

    def _loss(self, batch: Batch) -> Tensor:
        inputs, targets = (ids.to(self._device, non_blocking=True) for ids in batch)
        with autocast(self._config, self._device):
            loss: Tensor = self._model(inputs, targets)
        return loss


def prepared(config: TrainingConfig, model: GPT2) -> GPT2:
    """The model, made to compute as the settings say."""
    model.recompute = config.recompute
    if config.compile:
        model.fuse()
    return model


def adamw(config: TrainingConfig, model: GPT2) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) that decays matrices and embeddings only."""
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
    ]
    betas = config.beta1, config.beta2
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


def remember(optimizer: torch.optim.Optimizer, tensors: Iterable[Tensor], applied: int) -> None:
    """Let AdamW think that `applied` steps are done. Where it has no moments of a tensor yet, they
    are made, of zeros: before the first step there must be a place for what a checkpoint holds."""
    for tensor in tensors:
        state = optimizer.state[tensor]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=tensor.device)
            state |= {moment: torch.zeros_like(tensor) for moment in MOMENTS}
        state["step"].fill_(applied)


def clipped(weights: Iterable[Tensor], most: float) -> Tensor:
    """The norm of the gradient, which is then no longer than `most` (0: as long as it is)."""
    learnt = list(weights)
    norm = nn.utils.get_total_norm([w.grad for w in learnt if w.grad is not None])
    if most:
        nn.utils.clip_grads_with_norm_(learnt, most, norm)
    return norm


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """Matrix products in the precision that the settings ask for; weights stay fp32."""
    bf16 = config.precision == "bf16"
    return torch.autocast(device_type=device.type, dtype=torch.bfloat16, enabled=bf16)


def summed(losses: Sequence[Tensor]) -> Tensor:
    """In doubles, so that the order of ranks and passes does not show."""
    return torch.stack(list(losses)).double().sum()


def counted(batches: Sequence[Batch]) -> int:
    """Tokens that are not filling."""
    return sum(int((targets != IGNORED).sum()) for _, targets in batches)
