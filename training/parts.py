"""What a checkpoint's tensors lie in: one safetensors file a rank, of no rank's shape.

Every tensor is whole and lies in one file, whichever; so any number of ranks at any ZeRO stage can
read what any other wrote. Names: `weights/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME`, and the random
state of each rank, `rng/RANK/cpu` and `rng/RANK/cuda`.
"""

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from training import files, fit

Read = Callable[[str], Tensor]
"""A tensor by its name, on the CPU; KeyError where there is none."""


class Buffers:
    """Memory that a rank's tensors are copied to, so that training goes on while they are written;
    kept for the next time, as pinned memory is dear to get."""

    def __init__(self, rank: int, world: int) -> None:
        self._rank, self._held = rank, [0] * world
        self._owners: dict[str, int] = {}
        self._memory: dict[str, Tensor] = {}

    def copy(self, state: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Copies of this rank's share: each tensor goes to the rank that holds least so far."""
        for name, tensor in state:
            if name not in self._owners:
                owner = self._owners[name] = self._held.index(min(self._held))
                self._held[owner] += tensor.numel()
            if self._owners[name] == self._rank:
                self._place(name, tensor).copy_(tensor, non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return dict(self._memory)

    def _place(self, name: str, tensor: Tensor) -> Tensor:
        if name not in self._memory:
            self._memory[name] = _room(tensor)
        return self._memory[name]


def _room(tensor: Tensor) -> Tensor:
    """Of the host's memory, pinned where that is quicker and there is any."""
    try:
        return torch.empty(tensor.shape, dtype=torch.float32, pin_memory=tensor.is_cuda)
    except RuntimeError as error:
        if not (tensor.is_cuda and fit.is_full(error)):
            raise
        return torch.empty(tensor.shape, dtype=torch.float32)


def path(folder: Path, rank: int) -> Path:
    """Where a rank writes."""
    return folder / f"part-{rank:05d}.safetensors"


def write(place: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a file to the disk; its sha256. OSError where the disk fails or is full."""
    try:
        save_file(dict(tensors), place)
    except SafetensorError as error:
        _raise_disk(place, error)
    # safetensors lets only the owner read it, whatever the umask says; the folder was made by that.
    place.chmod(place.parent.stat().st_mode & 0o666)
    files.to_disk(place)
    return files.sha256(place)


@contextmanager
def opened(folder: Path) -> Iterator[Read]:
    """Read a whole checkpoint's tensors by name while the block runs."""
    with ExitStack() as stack:
        where: dict[str, Any] = {}
        for place in _places(folder):
            part = stack.enter_context(safe_open(place, framework="pt"))
            where |= dict.fromkeys(part.keys(), part)

        def read(name: str) -> Tensor:
            tensor: Tensor = where[name].get_tensor(name)
            return tensor

        yield read


def _places(folder: Path) -> list[Path]:
    """The files of a checkpoint's parts; FileNotFoundError where it is gone, or just goes."""
    found = sorted(each for each in folder.iterdir() if each.suffix == ".safetensors")
    if not found:
        raise FileNotFoundError(errno.ENOENT, "no part of a checkpoint is there", str(folder))
    return found


def weights(folder: Path) -> dict[str, Tensor]:
    """A checkpoint's weights by the model's names."""
    with ExitStack() as stack:
        found: dict[str, Tensor] = {}
        for place in _places(folder):
            part = stack.enter_context(safe_open(place, framework="pt"))
            names = [name for name in part.keys() if name.startswith("weights/")]  # noqa: SIM118
            found |= {name.removeprefix("weights/"): part.get_tensor(name) for name in names}
        return found


def random_state(rank: int) -> dict[str, Tensor]:
    """The state of torch's generators on this rank. The model draws nothing from them; what a user
    adds to it may."""
    state = {f"rng/{rank:05d}/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state[f"rng/{rank:05d}/cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random(read: Read, rank: int, seed: int) -> None:
    """Take up `random_state`; a rank that was not there then begins with one of its own."""
    torch.manual_seed(seed + rank)
    for kind, restore in (("cpu", torch.set_rng_state), ("cuda", torch.cuda.set_rng_state)):
        if kind == "cpu" or torch.cuda.is_available():
            try:
                restore(read(f"rng/{rank:05d}/{kind}"))
            except KeyError:
                continue


def _raise_disk(place: Path, error: SafetensorError) -> NoReturn:
    """safetensors tells the system's error in words alone."""
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else errno.EIO
    raise OSError(code, f"could not be written: {error}", str(place)) from error
