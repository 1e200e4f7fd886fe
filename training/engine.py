"""What the loop needs from a trainer (Engine), and the plainest one: torch on one device.

The micro-batches of a step are of one size, so the step's loss is the mean of theirs and its
gradient the mean of theirs, whichever engine and however many ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from training.config import TrainingConfig
from training.model import GPT2

Batch = tuple[Tensor, Tensor]
"""Inputs and targets: two tables of ids, a window a row, the second one token further on."""

_STATE = "optimizer.pt"


@dataclass(frozen=True)
class Step:
    """What one optimizer step did."""

    loss: float
    """Mean over all tokens of all ranks, before the step, in nats."""
    grad_norm: float
    """Of the whole gradient, before clipping."""


class Engine(Protocol):
    """A model with its optimizer on this rank. All ranks must make the same calls."""

    rank: int
    world: int

    def step(self, micro_batches: Sequence[Batch], learning_rate: float) -> Step:
        """One optimizer step on this rank's micro-batches."""

    def evaluate(self, batches: Sequence[Batch]) -> float:
        """Mean loss of batches of one size, the same on every rank, without learning."""

    def save(self, folder: Path) -> None:
        """Write into `folder` what `load` needs, each rank its files."""

    def load(self, folder: Path) -> None:
        """Take up the state that `save` left, as if never interrupted."""

    def weights(self) -> dict[str, Tensor]:
        """The model's weights in fp32 on the CPU (complete on rank 0), the tied one once."""

    def barrier(self) -> None:
        """Wait until every rank is here."""


class PlainEngine:
    """Engine in plain torch, on one device, alone: what others are compared with."""

    rank = 0
    world = 1

    def __init__(self, config: TrainingConfig, model: GPT2, device: torch.device) -> None:
        self._config, self._device = config, device
        self._model = model.to(device)
        self._optimizer = adamw(config, self._model)

    def step(self, micro_batches: Sequence[Batch], learning_rate: float) -> Step:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad(set_to_none=True)
        losses = []
        for batch in micro_batches:
            loss = self._loss(batch)
            (loss / len(micro_batches)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        most = self._config.clip or float("inf")
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), most)
        self._optimizer.step()
        return Step(loss=float(torch.stack(losses).mean()), grad_norm=float(norm))

    def evaluate(self, batches: Sequence[Batch]) -> float:
        with torch.no_grad():
            return float(torch.stack([self._loss(batch) for batch in batches]).mean())

    def save(self, folder: Path) -> None:
        torch.save(self._optimizer.state_dict(), folder / _STATE)
        torch.save(self.weights(), folder / "model.pt")

    def load(self, folder: Path) -> None:
        load_weights(self._model, torch.load(folder / "model.pt", weights_only=True))
        self._optimizer.load_state_dict(torch.load(folder / _STATE, weights_only=True))

    def weights(self) -> dict[str, Tensor]:
        return own_weights(self._model)

    def barrier(self) -> None:
        return None

    def _loss(self, batch: Batch) -> Tensor:
        inputs, targets = (ids.to(self._device) for ids in batch)
        with autocast(self._config, self._device):
            loss: Tensor = self._model(inputs, targets)
        return loss


def adamw(config: TrainingConfig, model: GPT2) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) that decays matrices and embeddings only."""
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
    ]
    betas = config.beta1, config.beta2
    fused = weights[0].is_cuda or None
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=fused)


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """Matrix products in the precision that the settings ask for; weights stay fp32."""
    bf16 = config.precision == "bf16"
    return torch.autocast(device_type=device.type, dtype=torch.bfloat16, enabled=bf16)


def own_weights(model: GPT2) -> dict[str, Tensor]:
    """A model's weights on the CPU by name, without the head's, which is the embedding."""
    return {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}


def load_weights(model: GPT2, weights: dict[str, Tensor]) -> None:
    """Put `weights` into a model; RuntimeError where a name or a shape differs."""
    model.load_state_dict(weights | {"lm_head.weight": weights["wte.weight"]})
