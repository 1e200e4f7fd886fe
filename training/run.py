"""One training run, as a rank sees it: what does not change while it goes on."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from training.config import TrainingConfig
from training.engine import Engine
from training.tokens import Tokens

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Settings, engine, data and folders of a run."""

    config: TrainingConfig
    engine: Engine
    train: Tokens
    validation: Tokens
    tokens_folder: Path
    """Where both lie, and the index that says whose they are."""
    folder: Path
    """The run's own: metrics, checkpoints."""
    micro: int
    """Windows of one forward pass."""
    manifest: str = ""
    """Hash of the manifest of the tokens, where they have one."""
    peak: float = 0.0
    """FLOP/s of all ranks' devices together, as measured; 0 where they were not."""
    agreed: Callable[[Callable[[], _T]], _T] = lambda make: make()
    """Rank 0 alone calls that; every rank gets what it returned, or raises what it raised. All
    ranks call it."""
    asked: Callable[[], bool] = lambda: False
    """Whether this rank has been asked to save and leave."""
    clock: Callable[[], float] = time.perf_counter
    """Seconds from anywhere; only times and rates in the metrics depend on it."""

    @property
    def context(self) -> int:
        """Tokens of a window."""
        return self.config.sizes().context
