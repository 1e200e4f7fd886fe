"""A run's metrics for TensorBoard, beside `metrics.jsonl`: the same numbers, by the same names."""

import errno
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX import SummaryWriter

_FOLDER = "tensorboard"


class Board:
    """Writes event files into a run's folder."""

    def __init__(self, folder: Path, after_step: int) -> None:
        """Go on after `after_step`: TensorBoard then hides later steps of the course given up."""
        # By themselves files are named by the second: one opened within the same would replace it.
        self._folder = folder / _FOLDER
        self._writer = SummaryWriter(
            str(self._folder),
            purge_step=after_step + 1,
            filename_suffix=f".{time.time_ns()}",
        )

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lives():
            self._writer.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """One step's numbers."""
        for name, value in line.items():
            if name == "step" or value is None:
                continue
            if not self._lives():  # and would never take another number off its queue
                said = "TensorBoard's writer has ended; the disk may be full"
                raise OSError(errno.EIO, said, str(self._folder))
            self._writer.add_scalar(name, float(value), line["step"])

    def _lives(self) -> bool:
        """Whether tensorboardX's thread is there, which ends without a word where a disk fails."""
        return bool(self._writer.file_writer.event_writer._worker.is_alive())
