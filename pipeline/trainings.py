"""What is told of a root's trainings: where they lie, how each stands."""

import time
from collections.abc import Iterable
from pathlib import Path

from pipeline.crawling import lasting
from training import metrics, status
from training.status import Standing


def folder(root: str) -> Path:
    """Where the trainings of a root lie, a folder each."""
    return Path(root) / "training"


def found(root: str) -> list[Standing]:
    """How each stands; those that did something last are at the end."""
    return status.runs(folder(root), time.time())


def others(root: str, own: Path) -> int:
    """How many runs lie beside this one. None of their files is read: they may be damaged."""
    return sum(metrics.path(each).exists() for each in status.folders(folder(root)) if each != own)


def lines(trainings: Iterable[Standing]) -> list[str]:
    """The same, to be read."""
    told = []
    for each in trainings:
        told.append(f"{line(each)}; {lasting(each.age_s)} ago; {each.folder}")
        if each.refused:
            told.append(f"training: cannot go on: {each.refused}")
    return told


def line(standing: Standing) -> str:
    """How far one is."""
    validation = standing.validation_loss
    parts = [f"step {standing.step:,} of {standing.steps:,}"]
    if standing.loss is not None:
        held_out = f" (validation {validation:.3f})" if validation else ""
        parts.append(f"loss {standing.loss:.3f}{held_out}")
        parts.append(f"{standing.tokens_per_s:,.0f} tokens/s")
    if standing.step < standing.steps and standing.loss is not None:
        parts.append(f"{lasting(standing.left_s)} left")
    if standing.checkpoints:
        parts.append(f"checkpoints {', '.join(f'{step:,}' for step in standing.checkpoints)}")
    return f"training: {', '.join(parts)}"
