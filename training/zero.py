"""The engine on DeepSpeed ZeRO: the one file that imports DeepSpeed.

DeepSpeed's own settings are derived from ours and recorded; nobody edits them. What it leaves open
is done here: weighting by tokens, the gradient's norm, its check at stage 0, when a step ends, and
a state of the optimizer that is of no stage's shape.
"""

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read once, on import

import deepspeed
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)

from training.config import TrainingConfig
from training.engine import (
    MOMENTS,
    Batch,
    Step,
    adamw,
    clipped,
    counted,
    prepared,
    remember,
    summed,
)
from training.model import GPT2, trimmed

_BUCKET = 50_000_000
"""Numbers sent at once: small enough that a 124 M model's gradient is sent while the rest is still
computed (at stages 1 and 2, on GPUs), which DeepSpeed's default of 500 million never does."""

logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
# DeepSpeed's calls of collectives that torch is renaming, one warning each call.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def settings(config: TrainingConfig, world: int, micro: int) -> dict[str, Any]:
    """DeepSpeed's configuration, derived. Its batch is the filled-up one, in whole passes."""
    passes = -(-config.rank_windows(world) // micro)
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
    }
    if config.zero_stage in (1, 2):
        # DeepSpeed's default at stage 3 alone. It costs a second bucket.
        zero["overlap_comm"] = torch.cuda.is_available() and world > 1
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    found: dict[str, Any] = {
        "train_batch_size": micro * passes * world,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": passes,
        # At stage 0 we clip ourselves: DeepSpeed would, without telling the norm.
        "gradient_clipping": config.clip if config.zero_stage else 0.0,
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        # It would wait for the GPU at every pass, to tell a speed that we measure ourselves.
        "timers": {"throughput": {"enabled": False}},
        # Else offloading wants DeepSpeed's own Adam, which is compiled on the user's machine.
        "zero_force_ds_cpu_optimizer": False,
    }
    if config.precision == "bf16":
        # Not DeepSpeed's "bf16": that rounds the weights too, and at stage 0 steps once on zeros.
        # No module is called safe: their gradients would be sent, and added up, in bf16.
        found["torch_autocast"] = {
            "enabled": True,
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        }
    return found


def join(device: torch.device) -> None:
    """Make DeepSpeed use the process group that is there."""
    if device.type == "cpu":
        # Else every start compiles an extension with g++ and ninja, 45 s the first time.
        # The table is made, by trying compilers out, when it is first read.
        from deepspeed.ops import __compatible_ops__ as compatible

        compatible["deepspeed_shm_comm"] = False
    backend = "nccl" if device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


class ZeroEngine:
    """Engine on DeepSpeed ZeRO; the process group must be `join`ed."""

    def __init__(
        self, config: TrainingConfig, model: GPT2, device: torch.device, micro: int
    ) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._config, self._device, self._stage = config, device, config.zero_stage
        self._model = prepared(config, model.to(device))
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=self._model,
            # DeepSpeed's own Adams are compiled on the user's machine; torch's needs no compiler.
            optimizer=adamw(config, self._model),
            config=settings(config, self.world, micro),
        )
        if self.world == 1 and not self._stage:
            # One rank's mean is its own gradient, which DeepSpeed would copy out and back.
            self._engine.enable_backward_allreduce = False
        self._remember(0)

    def step(self, batches: Sequence[Batch], tokens: int, learning_rate: float) -> Step:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        losses = []
        for left, batch in zip(range(len(batches))[::-1], batches, strict=True):
            self._engine.set_gradient_accumulation_boundary(left == 0)
            loss = self._loss(batch)
            # DeepSpeed takes the mean of the ranks' gradients; the sum is what we want.
            self._engine.backward(loss * (self.world / tokens), scale_wrt_gas=False)
            losses.append(loss.detach())
        norm = self._update()
        return Step(self._sum(summed(losses)) / tokens, norm, math.isfinite(norm))

    def evaluate(self, batches: Sequence[Batch]) -> float:
        self._engine.eval()
        with torch.no_grad():
            losses = [self._loss(batch) for batch in batches]
        self._engine.train()
        number = torch.tensor(float(counted(batches)), dtype=torch.float64, device=self._device)
        return self._sum(summed(losses)) / self._sum(number)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self._model.named_parameters():
            yield f"weights/{name}", self._trimmed(name, self._whole(weight))
        for name, weight in self._model.named_parameters():
            for moment in MOMENTS:
                yield f"{moment}/{name}", self._trimmed(name, self._whole(weight, moment))

    def load(self, read: Callable[[str], Tensor], applied: int) -> None:
        self._remember(applied)
        with torch.no_grad():
            # One tensor after the other: several ranks share a host's memory.
            for name, weight in self._model.named_parameters():
                value = self._padded(name, read(f"weights/{name}"))
                with self._gathered(weight) as here:
                    if here:
                        weight.copy_(value)
                self._put(weight, value)
                for moment in MOMENTS:
                    self._put(weight, self._padded(name, read(f"{moment}/{name}")), moment)

    def any(self, here: bool) -> bool:
        return self._sum(torch.tensor(float(here), device=self._device)) > 0

    def barrier(self) -> None:
        dist.barrier()

    def _update(self) -> float:
        """Take the step, if the gradient is finite; its norm."""
        if self._stage:
            norm = self._sharded_norm()
            self._engine.step()
            # ZeRO passes over a step whose gradient is not finite, without a word.
            return norm if self._engine.was_step_applied() else math.inf
        norm = float(clipped(self._model.parameters(), self._config.clip))
        if math.isfinite(norm):
            self._engine.step()
        else:
            self._engine.zero_grad()
        return norm

    def _sharded_norm(self) -> float:
        """Of the whole gradient, of which each rank holds a part by now. Told as at stage 0; what
        DeepSpeed cuts by is its own."""
        zero, offloaded = self._optimizer, self._config.offload_optimizer
        if not offloaded:
            parts = [part for group in zero.averaged_gradients.values() for part in group]
        else:
            if self._device.type == "cuda":
                torch.cuda.synchronize()  # they are still on their way to the host
            groups = "fp32_partitioned_groups_flat", "single_partition_of_fp32_groups"
            parts = [group.grad for group in getattr(zero, groups[self._stage < 3])]
        squares = torch.zeros((), dtype=torch.float64, device=self._device)
        for part in parts:
            squares += torch.linalg.vector_norm(part).to(squares) ** 2
        return math.sqrt(self._sum(squares))

    def _loss(self, batch: Batch) -> Tensor:
        inputs, targets = (ids.to(self._device, non_blocking=True) for ids in batch)
        loss: Tensor = self._engine(inputs, targets)
        return loss

    def _sum(self, value: Tensor) -> float:
        dist.all_reduce(value)
        return float(value)

    def _remember(self, applied: int) -> None:
        """Adam's state with our own count of steps, as DeepSpeed can neither give nor take one."""
        adam = getattr(self._optimizer, "optimizer", self._optimizer)
        if self._stage == 0:
            remember(adam, self._model.parameters(), applied)
        elif self._stage == 3:
            remember(adam, self._optimizer.fp32_partitioned_groups_flat, applied)
        else:
            remember(adam, self._optimizer.single_partition_of_fp32_groups, applied)
            # DeepSpeed does so after the first step: from here on it knows where moments lie.
            self._optimizer._hp_optimizer_states_linked = False
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _whole(self, weight: Tensor, moment: str | None = None) -> Tensor:
        """A weight or a moment of it, gathered from all ranks."""
        if self._stage == 0:
            return self._optimizer.state[weight][moment] if moment else weight.detach()
        if moment:
            found: Tensor = safe_get_full_optimizer_state(weight, moment)
        else:
            found = safe_get_full_fp32_param(weight)
        return found

    @contextmanager
    def _gathered(self, weight: Tensor) -> Iterator[bool]:
        """Whether this rank may write the whole weight in the block."""
        if self._stage < 3:
            yield True
            return
        with deepspeed.zero.GatheredParameters([weight], modifier_rank=0):
            yield self.rank == 0

    def _put(self, weight: Tensor, value: Tensor, moment: str | None = None) -> None:
        """Set what `_whole` gives; every rank has the whole value."""
        if self._stage == 0:
            if moment:
                self._optimizer.state[weight][moment].copy_(value)
        elif self._stage < 3 and moment:
            safe_set_full_optimizer_state(weight, value, moment)
        elif self._stage < 3:
            safe_set_full_fp32_param(weight, value)
        elif moment:
            safe_set_local_optimizer_state(weight, self._part(value), moment)
        else:
            safe_set_local_fp32_param(weight, self._part(value))

    def _part(self, value: Tensor) -> Tensor:
        """This rank's part of a tensor at stage 3. DeepSpeed's own way from the whole one fails
        where the ranks do not divide it."""
        size = -(-value.numel() // self.world)
        filled = torch.zeros(size * self.world, device=value.device)
        filled[: value.numel()] = value.flatten()
        return filled[self.rank * size :][:size]

    def _trimmed(self, name: str, whole: Tensor) -> Tensor:
        return trimmed(name, whole, self._model.sizes)

    def _padded(self, name: str, value: Tensor) -> Tensor:
        """On the device, with rows of zeros where the model has rows of padding."""
        rows = self._model.sizes.padded_vocabulary() if name == "wte.weight" else len(value)
        whole = torch.zeros((rows, *value.shape[1:]), device=self._device)
        whole[: len(value)] = value
        return whole
