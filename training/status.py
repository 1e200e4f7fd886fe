"""How a training stands, from the files of its run alone: for those who look on from outside.

Reads the end of `metrics.jsonl` only, so that a look costs the same after a million steps.
"""

from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from training import checkpoint, metrics, refusal

_LINES = 50
"""Steps whose median time the rest of the run is judged by: saves and looks among them are rare."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far one run is."""

    folder: str
    step: int
    steps: int
    """Where it will end."""
    loss: float
    validation_loss: float | None
    """The newest, where one of the last steps has looked."""
    tokens_per_s: float
    pace_s: float
    """Seconds a step takes: the median of the last ones."""
    left_s: float
    """Seconds to its end, at the pace of its last steps."""
    age_s: float
    """Seconds since its last step; many, where it does not run."""
    checkpoints: list[int]
    """Steps of those that claim to be whole."""
    refused: str | None
    """Why it cannot go on."""


class _Steps(msgspec.Struct):
    """Of a run's settings what says where it ends."""

    steps: int
    stop_after: int | None = None


def warnings(folder: Path) -> Path:
    """Where rank 0 writes what it warns of, for those who do not see its terminal."""
    return folder / "warnings.log"


def runs(root: Path, now: float) -> list[Standing]:
    """The runs in `root`, those that did something last at the end; `now` in seconds as time.time
    gives them."""
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    found = [each for path in sorted(folders) if (each := standing(path, now)) is not None]
    return sorted(found, key=lambda each: -each.age_s)


def standing(folder: Path, now: float) -> Standing | None:
    """How the run in `folder` stands; None where it has not done a step."""
    lines = metrics.tail(folder, _LINES)
    if not lines:
        return None
    last, refused = lines[-1], refusal.read(folder)
    steps, pace_s = _steps(folder, last), pace(lines)
    return Standing(
        folder=str(folder),
        step=last["step"],
        steps=steps,
        loss=last["loss"],
        validation_loss=next(
            (line["validation_loss"] for line in lines[::-1] if "validation_loss" in line), None
        ),
        tokens_per_s=last["tokens_per_s"],
        pace_s=pace_s,
        left_s=max(0, steps - last["step"]) * pace_s,
        age_s=max(0.0, now - metrics.path(folder).stat().st_mtime),
        checkpoints=checkpoint.steps(folder),
        refused=refused.says if refused else None,
    )


def pace(lines: list[dict[str, Any]]) -> float:
    """Seconds a step takes."""
    return float(median(line["seconds"] for line in lines))


def _steps(folder: Path, last: dict[str, Any]) -> int:
    path = folder / "settings.json"
    if not path.exists():
        return int(last["step"])
    # Not as TrainingConfig: another version may have had other keys.
    found = msgspec.json.decode(path.read_bytes(), type=_Steps)
    return min(found.steps, found.stop_after or found.steps)
