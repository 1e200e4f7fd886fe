"""What micro-batch fits into the memory: found by running out of it.

A rank that runs out cannot tell the others, who wait for it within a collective. So it writes down
half of what was too much and ends; all are started again, with that at most. The note holds for
the same sizes on the same kind of device only.
"""

import hashlib
import re
from pathlib import Path

import msgspec
import torch

from training import files
from training.config import BadInput, TrainingConfig

_FILE = "fits.json"
_SAYS = re.compile("can't allocate memory|out of memory|STATUS_ALLOC_FAILED", re.IGNORECASE)
"""In order: torch's allocator for CPUs; the one for GPUs, CUDA and NCCL, and the compiler that
quotes them; cuBLAS and cuDNN. "Out of resource" is another thing: a kernel asks too much of the
chip, with any micro-batch."""


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    circumstances: str
    micro: int


def is_full(error: BaseException) -> bool:
    """Whether this says that memory does not suffice, or was met with something that does: the
    compiler, for one, wraps what it meets in an error of its own."""
    met: BaseException | None = error
    while met is not None:
        full = isinstance(met, RuntimeError) and _SAYS.search(str(met))
        if full or isinstance(met, torch.OutOfMemoryError):
            return True
        met = met.__cause__ or met.__context__
    return False


def found(folder: Path, config: TrainingConfig, world: int) -> int | None:
    """The most windows a forward pass may have, as far as is known."""
    path = folder / _FILE
    if not path.exists():
        return None
    note = files.read(path, _Note)
    return note.micro if note.circumstances == _circumstances(config, world) else None


def halve(folder: Path, config: TrainingConfig, world: int, micro: int) -> int:
    """Write down that `micro` windows are too many; how many are tried next. BadInput where even
    one does not fit."""
    if micro == 1:
        raise BadInput(
            "training.micro_batch: not even one window fits into the memory; take more ranks with "
            "a higher training.zero_stage, training.recompute = true, or a smaller training.model"
        )
    note = _Note(circumstances=_circumstances(config, world), micro=micro // 2)
    files.write(folder / _FILE, msgspec.json.encode(note))
    return note.micro


def _circumstances(config: TrainingConfig, world: int) -> str:
    """All that decides how much memory a window takes, hashed."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    known = (
        config.sizes(), config.zero_stage, config.offload_optimizer, config.recompute,
        config.compile, config.precision, world, device,
    )  # fmt: skip
    return hashlib.blake2b(msgspec.json.encode(known), digest_size=8).hexdigest()
