"""Sees that a loss or a gradient is out of all proportion to those before it.

Pure: what is a spike follows from the numbers of the steps before, so every rank and every repeat
of a run finds the same ones.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from training.config import GuardConfig

_WATCHED = ("loss", "grad_norm")


class Spikes:
    """Looks at the lines of a run, one after the other."""

    def __init__(self, config: GuardConfig, before: Iterable[Mapping[str, Any]]) -> None:
        """`before`: the metrics of the steps that were done already, oldest first; of those that
        count, `config.window` at least, where there were so many."""
        self._config = config
        self._seen = {name: deque[float](maxlen=config.window) for name in _WATCHED}
        for line in before:
            self._add(line)

    def look(self, line: Mapping[str, Any]) -> dict[str, float]:
        """The z-scores of what spikes in this step's metrics, by name; empty where nothing does.

        A z-score is (value - mean) / deviation over the last `window` steps; only what is too
        high is a spike, as falling is what a loss is for. A step that was not applied is none, as
        it changed nothing.
        """
        if not counts(line):
            return {}
        found = {name: z for name in _WATCHED if (z := self._z(name, line[name])) is not None}
        self._add(line)
        return found

    def _z(self, name: str, value: float) -> float | None:
        seen = self._seen[name]
        if not self._config.z_score or len(seen) < self._config.window:
            return None
        deviation = float(np.std(seen))
        z = (value - float(np.mean(seen))) / deviation if deviation else 0.0
        return z if z > self._config.z_score else None

    def _add(self, line: Mapping[str, Any]) -> None:
        if counts(line):
            for name in _WATCHED:
                self._seen[name].append(line[name])


def counts(line: Mapping[str, Any]) -> bool:
    """Whether others are measured by this step: one whose gradient was not finite has no norm."""
    return bool(line.get("applied", True))
