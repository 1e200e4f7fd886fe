"""Which generation of each dataset a run names, and how far it is made.

There is no database of states: a shard is whole when its report exists, a dataset when its manifest
exists, and `run.json` names the generation of each dataset that was last made whole.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline import fingerprint, scatter, shard
from pipeline.fingerprint import Material
from pipeline.manifest import Manifest
from pipeline.stage import Stage
from pipeline.store import Dataset, read_as, write_json

Status = Literal["whole", "partial", "stale", "missing"]


@dataclass(frozen=True)
class State:
    """One dataset of a run, as it is now."""

    stage: Stage
    dataset: Dataset
    material: Material
    status: Status
    done: int
    """Tasks that are done, of `tasks`."""
    tasks: int
    reasons: tuple[str, ...]
    """Where another generation stands in the run: what differs."""


class RunFile(msgspec.Struct, kw_only=True):
    """`run.json`: the generations that make up the run."""

    datasets: dict[str, str] = {}
    """Fingerprint of the newest whole generation, by dataset."""
    remakes: dict[str, int] = {}
    """How often a dataset was made anew by request; hashed into its fingerprint."""
    remaking: dict[str, str] = {}
    """Requests of that kind under way: the dataset, and the last one that was to be made then."""
    settings: dict[str, Any] = {}
    """The resolved tree of the last rebuild."""


_ONLY_RUN = (
    "remove this file alone (the datasets are found again by their fingerprints; "
    "only the count of remakes is lost)"
)


def load_run(root: Path) -> RunFile:
    """What `run.json` says; empty before the first rebuild."""
    path = root / "run.json"
    return read_as(path, RunFile, _ONLY_RUN) if path.exists() else RunFile()


def save_run(root: Path, run: RunFile) -> None:
    """Write `run.json`, whole."""
    write_json(root / "run.json", msgspec.to_builtins(run))


def inspect(plan: Iterable[Stage], root: Path, shards: int) -> dict[str, State]:
    """The state of every dataset of the plan, by name, in the plan's order."""
    run = load_run(root)
    states: dict[str, State] = {}
    for stage in plan:
        inputs = {name: states[name].dataset.fingerprint for name in stage.reads}
        remade = run.remakes.get(stage.makes, 0)
        made_of = fingerprint.material(stage, shards, inputs, stage.leaves, remade)
        states[stage.makes] = _state(stage, made_of, root, run.datasets.get(stage.makes))
    return states


def _state(stage: Stage, made_of: Material, root: Path, standing: str | None) -> State:
    mark = made_of.fingerprint()
    dataset = Dataset(
        stage.makes,
        mark,
        root / stage.makes / mark,
        made_of.shards,
        scattered=stage.main.scatter is not None,
    )
    tasks = sum(step.tasks(made_of.shards) for _, step in stage.steps())
    folders = [shard.left_by(dataset, phase).folder for phase, _ in stage.steps()]
    done = sum(len(list(folder.glob("reports/*.json"))) for folder in folders)
    reasons: tuple[str, ...] = ()
    if standing and standing != mark:
        before = Dataset(stage.makes, standing, root / stage.makes / standing, made_of.shards)
        if before.folder.exists():
            reasons = tuple(fingerprint.differences(begun(before), made_of))
    status: Status = "missing"
    if (dataset.folder / "manifest.json").exists():
        status = "whole"
    elif done:
        status = "partial"
    elif reasons:
        status = "stale"
    return State(stage, dataset, made_of, status, done, tasks, reasons)


def bytes_read(entry: State) -> tuple[int, int]:
    """How many bytes of the leaves it begins with a dataset has read, and of how many."""
    items = entry.stage.main.over or ()
    folder = entry.dataset.folder
    done = {int(path.stem) for path in folder.glob("reports/*.json")}
    way = scatter.bytes_read(folder)
    read = sum(
        one.bytes if index in done else min(one.bytes, way.get(index, 0))
        for index, one in enumerate(items)
    )
    return read, sum(one.bytes for one in items)


def begun(dataset: Dataset) -> Material:
    """What a dataset was made of."""
    return read_as(dataset.folder / "begun.json", Material, f"remove {dataset.folder}")


def datasets(root: Path) -> Mapping[str, Dataset]:
    """The whole datasets that `run.json` names, to be read without a plan or a recipe."""
    found: dict[str, Dataset] = {}
    for name, mark in load_run(root).datasets.items():
        folder = root / name / mark
        told = read_as(folder / "manifest.json", Manifest)
        found[name] = Dataset(name, mark, folder, told.shards, told.scattered)
    return found
