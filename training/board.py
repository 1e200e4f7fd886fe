"""A run's metrics for TensorBoard, beside `metrics.jsonl`: the same numbers, by the same names."""

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
        self._writer = SummaryWriter(
            str(folder / _FOLDER),
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
        self._writer.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """One step's numbers."""
        for name, value in line.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, float(value), line["step"])
