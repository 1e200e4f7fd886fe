"""Writes a checkpoint beside the training: whole, or not at all.

Each rank writes its part in a thread of its own and then says so by a small file; rank 0 waits for
all of those, and seals. One checkpoint is under way at a time. What a thread meets is raised at the
next look.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from torch import Tensor

from training import files, parts

_LOOK_S = 0.1
"""Between two looks at what the other ranks have written."""

_PATIENCE_S = 60.0
"""How long after an error the others' parts are still waited for: where all ranks met the same one,
all still finish theirs; where a rank is gone, its part never comes."""


class Saver:
    """This rank's writer of checkpoints."""

    def __init__(self, rank: int, world: int) -> None:
        self._rank, self._world = rank, world
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._given_up = threading.Event()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """What is under way is finished, even where an error ends the run, if that can be."""
        if error is not None:
            self._given_up.set()
        self._pool.shutdown()

    def start(
        self, folder: Path, tensors: Mapping[str, Tensor], seal: Callable[[dict[str, str]], None]
    ) -> None:
        """Write `tensors`, which nobody may change until `wait`, into the unfinished `folder`; on
        rank 0 then call `seal` with the sha256 of all ranks' files by name."""
        self.wait()
        self._writing = self._pool.submit(self._write, folder, tensors, seal)

    def check(self) -> None:
        """Raise what went wrong, if something did; does not wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is under way; raises what went wrong."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(
        self, folder: Path, tensors: Mapping[str, Tensor], seal: Callable[[dict[str, str]], None]
    ) -> None:
        place = parts.path(folder, self._rank)
        digest = parts.write(place, tensors)
        files.write(_told(place), digest.encode())
        if self._rank == 0:
            seal(dict(self._digest(folder, rank) for rank in range(self._world)))

    def _digest(self, folder: Path, rank: int) -> tuple[str, str]:
        place = parts.path(folder, rank)
        told, left_s = _told(place), _PATIENCE_S
        while not told.exists():
            if self._given_up.is_set():
                left_s -= _LOOK_S
            if left_s < 0:
                raise TimeoutError(f"{folder}: rank {rank} has not written its part")
            time.sleep(_LOOK_S)
        digest = told.read_text()
        told.unlink()
        return place.name, digest


def _told(place: Path) -> Path:
    return place.with_suffix(".sha256")
