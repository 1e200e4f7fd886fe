"""`metrics.jsonl` of a run: one line a step, in the order of steps, each step once.

A line has step, loss, lr, grad_norm (null where it was not finite), tokens (of the run so far),
tokens_per_s, seconds, data_wait_s and checkpoint_stall_s (of the step), mfu (null where no peak was
measured), memory_bytes, applied, steps_not_applied (of the run so far), and validation_loss where
the step looked at the validation split.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from training import files
from training.config import BadInput

_NAME = "metrics.jsonl"


class Writer:
    """Appends lines; each is on its way to the disk when `write` returns."""

    def __init__(self, folder: Path, after_step: int) -> None:
        """Go on after `after_step`: lines of later steps are of a course that was given up."""
        folder.mkdir(parents=True, exist_ok=True)
        _cut(folder / _NAME, after_step)
        self._path = folder / _NAME
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

    def write(self, line: dict[str, float]) -> None:
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


def read(folder: Path | str) -> list[dict[str, Any]]:
    """A run's lines; none where it has not begun. A last line cut short by a crash is left out.
    BadInput where another is damaged."""
    path = Path(folder) / _NAME
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    lines = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            lines.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.DecodeError as error:
            raise BadInput(
                f"{path}: line {number} is damaged ({error}); remove that line"
            ) from error
    return lines


def _cut(path: Path, after_step: int) -> None:
    kept = [line for line in read(path.parent) if line["step"] <= after_step]
    files.write(path, b"".join(msgspec.json.encode(line) + b"\n" for line in kept))
