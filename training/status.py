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
    loss: float | None
    """None where it has not done a step."""
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


def folders(root: Path) -> list[Path]:
    """The folders in `root` that may be runs; nothing in them is looked at."""
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def runs(root: Path, now: float) -> list[Standing]:
    """The runs in `root`, those that did something last at the end; `now` in seconds as time.time
    gives them. Of one whose files are damaged that is all that is told."""
    found = []
    for path in folders(root):
        try:
            each = standing(path, now)
        except FileNotFoundError:  # somebody removes it
            continue
        except (ValueError, OSError) as error:
            each = _without_steps(path, 0.0, str(error), [], 0)
        if each is not None:
            found.append(each)
    return sorted(found, key=lambda each: -each.age_s)


def standing(folder: Path, now: float) -> Standing | None:
    """How the run in `folder` stands; None where it has neither done a step nor been refused."""
    lines = metrics.tail(folder, _LINES)
    refused, saved = refusal.read(folder), checkpoint.steps(folder)
    says = refused.says if refused else None
    if not lines:
        age_s = max(0.0, now - folder.stat().st_mtime)
        bare = _without_steps(folder, age_s, says, saved, _steps(folder))
        return bare if says or saved else None
    last = lines[-1]
    steps, pace_s = _steps(folder) or last["step"], pace(lines)
    return Standing(
        folder=str(folder),
        step=last["step"],
        steps=steps,
        loss=last["loss"],
        validation_loss=next(
            (line["validation_loss"] for line in lines[::-1] if "validation_loss" in line), None
        ),
        tokens_per_s=last.get("tokens_per_s", 0.0),
        pace_s=pace_s,
        left_s=max(0, steps - last["step"]) * pace_s,
        age_s=max(0.0, now - metrics.path(folder).stat().st_mtime),
        checkpoints=saved,
        refused=says,
    )


def pace(lines: list[dict[str, Any]]) -> float:
    """Seconds a step takes."""
    return float(median(line.get("seconds", 0.0) for line in lines))


def _without_steps(
    folder: Path, age_s: float, refused: str | None, saved: list[int], steps: int | None
) -> Standing:
    """Of a run that has no lines to tell."""
    step = saved[-1] if saved else 0
    return Standing(
        folder=str(folder), step=step, steps=steps or step, loss=None, validation_loss=None,
        tokens_per_s=0.0, pace_s=0.0, left_s=0.0, age_s=age_s, checkpoints=saved, refused=refused,
    )  # fmt: skip


def _steps(folder: Path) -> int | None:
    """Where a run will end; None where nothing says so."""
    path = folder / "settings.json"
    try:
        # Not as TrainingConfig: another version may have had other keys.
        found = msgspec.json.decode(path.read_bytes(), type=_Steps)
    except (FileNotFoundError, ValueError):  # whoever trains on writes it anew
        return None
    return min(found.steps, found.stop_after or found.steps)
