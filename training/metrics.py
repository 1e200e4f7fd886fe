"""`metrics.jsonl` of a run: one line a step, in the order of steps, each step once.

A line has step; loss (nats a token, before the step); lr; grad_norm (before clipping; null where
it is not finite); tokens (of the run so far); tokens_per_s and seconds (of the step); mfu (share of
the devices' measured peak); data_wait_s (of those seconds, waiting for the batch);
checkpoint_stall_s (between the step before and this one, saving); memory_bytes (the most held so
far by rank 0); applied (whether the weights moved); steps_not_applied (so far); and validation_loss
where the step looked at the validation split.
"""

import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from training.config import BadInput

_NAME = "metrics.jsonl"
_BLOCK_BYTES = 65_536
"""Read at once, where the last lines are looked for: some two hundred of them."""


class Writer:
    """Appends lines; each is on its way to the disk when `write` returns."""

    def __init__(self, folder: Path, after_step: int) -> None:
        """Go on after `after_step`: lines of later steps are of a course that was given up."""
        folder.mkdir(parents=True, exist_ok=True)
        _cut(path(folder), after_step)
        self._path = path(folder)
        self._file = self._path.open("ab", buffering=0)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one step's numbers; OSError where the disk does not take all of them."""
        left = msgspec.json.encode(line) + b"\n"
        try:
            # A disk takes what still fits without a word; only the next write says that it is full.
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def sync(self) -> None:
        """Put all lines on the disk: a checkpoint must not know of steps that they do not."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def path(folder: Path) -> Path:
    """Where the lines of a run are."""
    return folder / _NAME


def read(folder: Path | str) -> list[dict[str, Any]]:
    """All of a run's `lines`, which may be a million."""
    return list(lines(Path(folder)))


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    """A run's lines; none where it has not begun. A last line cut short by a crash is left out.
    BadInput where another is damaged."""
    file = path(folder)
    if not file.exists():
        return
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.endswith(b"\n"):
                yield _decoded(line, f"{file}: line {number}")


def tail(
    folder: Path,
    count: int,
    until: float = math.inf,
    wanted: Callable[[dict[str, Any]], bool] = lambda line: True,
) -> list[dict[str, Any]]:
    """The last lines of a run up to step `until` that are `wanted`, `count` at most; as `read`, but
    without reading those before them."""
    found: list[dict[str, Any]] = []
    for _, line in _backwards(path(folder)):
        if line["step"] <= until and wanted(line):
            found.append(line)
        if len(found) == count:
            break
    return found[::-1]


def first(folder: Path) -> dict[str, Any] | None:
    """The first line of a run; None where there is none."""
    file = path(folder)
    with file.open("rb") if file.exists() else io.BytesIO() as stream:
        line = stream.readline()
    return _decoded(line, f"{file}: line 1") if line.endswith(b"\n") else None


def _backwards(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """A run's lines from the last whole one on, and where in the file each ends."""
    with file.open("rb") if file.exists() else io.BytesIO() as stream:
        begin, kept = stream.seek(0, os.SEEK_END), b""
        while begin:
            end, begin = begin, max(0, begin - _BLOCK_BYTES)
            stream.seek(begin)
            kept = stream.read(end - begin) + kept
            if not kept:  # it was cut meanwhile, by whoever goes on from an earlier step
                return
            # The first piece may be the end of a line that begins in the block before.
            head, *whole = kept.splitlines(keepends=True)
            place = begin + len(kept)
            for line in reversed(whole if begin else [head, *whole]):
                if line.endswith(b"\n"):
                    yield place, _decoded(line, f"{file}: the line that ends at byte {place}")
                place -= len(line)
            kept = head


class _Relied(msgspec.Struct):
    """What whoever reads a line relies on."""

    step: int
    loss: float
    seconds: float = 0.0
    tokens_per_s: float = 0.0


def _decoded(line: bytes, where: str) -> dict[str, Any]:
    try:
        msgspec.json.decode(line, type=_Relied)
        return msgspec.json.decode(line, type=dict[str, Any])
    except ValueError as error:
        raise BadInput(f"{where} is damaged ({error}); remove that line") from error


def _cut(file: Path, after_step: int) -> None:
    """Forget the lines of later steps, and one that a crash cut short."""
    ends = (place for place, line in _backwards(file) if line["step"] <= after_step)
    if file.exists():
        os.truncate(file, next(ends, 0))
