"""Walk the plan: make what is missing, finish what is partial, leave what is whole.

There is no barrier between stages: a task waits for just the shards it reads. The machinery gets
the plan as an argument and knows none of its nouns.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Protocol

import msgspec

from pipeline import manifest, schedule, shard, state
from pipeline.adopt import adopt
from pipeline.early import Early
from pipeline.manifest import Report
from pipeline.scatter import underway
from pipeline.schedule import Schedule
from pipeline.shard import Task
from pipeline.stage import Phase, Stage, Step
from pipeline.state import State
from pipeline.store import sweep, write_json

Progress = Callable[[str, int, int], None]
"""Called with (dataset, tasks done, tasks in all)."""


class Executor(Protocol):
    """Where tasks run."""

    def free(self, task: Task) -> bool:
        """Whether there is room for a task of this kind: one that waits for the world, together
        with others, takes no room of one that computes."""

    def submit(self, task: Task) -> None:
        """Take a task."""

    def wait(self, limit_s: float | None = None) -> tuple[Task, Report] | None:
        """The next task that is done, or None where none is within about so many seconds; raises
        `TaskFailed` for one whose function raised."""


def rebuild(
    plan: Sequence[Stage], root: Path, shards: int, executor: Executor, progress: Progress
) -> None:
    """Make every dataset of the plan whole."""
    states = state.inspect(plan, root, shards)
    for entry in states.values():
        _begin(entry)
    if any([adopt(few) for few in _by_dataset(states)]):
        states = state.inspect(plan, root, shards)
    early = Early(states)
    for name, entry in states.items():
        progress(name, entry.done, entry.tasks)
        if entry.status == "whole" or entry.done == entry.tasks:
            _finish(entry, root)
            early.whole(entry)
    _run_tasks(states, early, root, executor, progress)


def _run_tasks(
    states: Mapping[str, State], early: Early, root: Path, executor: Executor, progress: Progress
) -> None:
    left = Schedule(states)
    done = {name: entry.done for name, entry in states.items()}
    while left or early:
        while task := left.next(executor.free) or early.next(left.waits, executor.free):
            executor.submit(task)
        ended = executor.wait(early.pause(left.waits))
        if ended is None or early.finished(ended[0].key):
            continue
        task, _ = ended
        left.finished(task.key)
        entry = states[task.stage.makes]
        done[task.stage.makes] += 1
        progress(task.stage.makes, done[task.stage.makes], entry.tasks)
        if done[task.stage.makes] == entry.tasks:
            _finish(entry, root)
            early.whole(entry)


def _by_dataset(states: Mapping[str, State]) -> Iterator[list[Task]]:
    """The tasks that are left, dataset by dataset."""
    for _, tasks in groupby(schedule.tasks(states), key=lambda task: task.stage.makes):
        yield list(tasks)


def _begin(entry: State) -> None:
    sweep(entry.dataset.folder)
    path = entry.dataset.folder / "begun.json"
    if not path.exists():
        write_json(path, msgspec.to_builtins(entry.material))


def _finish(entry: State, root: Path) -> None:
    """Fold the reports into the manifest: now the dataset is whole, and the run names it."""
    path = entry.dataset.folder / "manifest.json"
    shutil.rmtree(underway(entry.dataset.folder), ignore_errors=True)
    if not path.exists():
        write_json(path, msgspec.to_builtins(_folded(entry)))
    run = state.load_run(root)
    if run.datasets.get(entry.stage.makes) != entry.dataset.fingerprint:
        run.datasets[entry.stage.makes] = entry.dataset.fingerprint
        state.save_run(root, run)


def _folded(entry: State) -> manifest.Manifest:
    dataset = entry.dataset
    *before, main = (list(_reports(entry, phase, step)) for phase, step in entry.stage.steps())
    return manifest.fold(
        dataset.name,
        dataset.fingerprint,
        dataset.shards,
        dataset.scattered,
        main,
        list(chain.from_iterable(before)),
    )


def _reports(entry: State, phase: Phase, step: Step) -> Iterator[Report]:
    folder = shard.left_by(entry.dataset, phase).folder
    for index in range(step.tasks(entry.dataset.shards)):
        report = shard.report_of(folder, index)
        assert report, f"{folder}: no report of task {index}"
        yield report
