"""Which task may run next: one of the latest stage whose inputs stand, so that shards flow on.

No files and no machines: the tasks are handed in, and the end of each is told. A task waits for
*groups* of tasks: one shard of an input, or all of a stage's step.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from pipeline import shard
from pipeline.shard import Key, Task
from pipeline.stage import MAIN, Phase
from pipeline.state import State

Group = tuple[str, Phase, int | None]
"""A dataset's step, whole (None) or one shard of it."""


class Schedule:
    """The tasks that are left, in an order that respects what they read."""

    def __init__(self, states: Mapping[str, State]) -> None:
        self._places = {name: place for place, name in enumerate(states)}
        self._tasks = {task.key: task for task in tasks(states)}
        self._open: dict[Group, set[Key]] = {}
        for key in self._tasks:
            for group in groups_of(key):
                self._open.setdefault(group, set()).add(key)
        self._missing: dict[Key, int] = {}
        self._waiters: dict[Group, list[Key]] = {}
        self._waiting: Counter[str] = Counter()
        # By the stage's place; steps of one stage are never ready together.
        self._ready: dict[int, list[Key]] = {}
        for key, task in self._tasks.items():
            self._wait_or_ready(key, [group for group in needs(task) if group in self._open])

    def __len__(self) -> int:
        """How many tasks are not finished."""
        return len(self._tasks)

    def next(self, free: Callable[[Task], bool] = lambda _: True) -> Task | None:
        """A task to start now for which there is room, or None: wait for one to finish. Asked for
        one task of a stage, `free` speaks for all of it that are ready."""
        for place, ready in sorted(self._ready.items(), reverse=True):
            if free(self._tasks[ready[0]]):
                key = heapq.heappop(ready)
                if not ready:
                    del self._ready[place]
                return self._tasks[key]
        return None

    def waits(self, name: str) -> bool:
        """Whether a task of this dataset waits for what it reads."""
        return self._waiting[name] > 0

    def finished(self, key: Key) -> None:
        """Hear that a task is done."""
        del self._tasks[key]
        for group in groups_of(key):
            self._open[group].discard(key)
            if not self._open[group]:
                del self._open[group]
                for waiter in self._waiters.pop(group, []):
                    self._missing[waiter] -= 1
                    if not self._missing[waiter]:
                        self._waiting[waiter[0]] -= 1
                        self._make_ready(waiter)

    def _wait_or_ready(self, key: Key, missing: list[Group]) -> None:
        self._missing[key] = len(missing)
        for group in missing:
            self._waiters.setdefault(group, []).append(key)
        if missing:
            self._waiting[key[0]] += 1
        else:
            self._make_ready(key)

    def _make_ready(self, key: Key) -> None:
        heapq.heappush(self._ready.setdefault(self._places[key[0]], []), key)


def tasks(states: Mapping[str, State]) -> Iterator[Task]:
    """The tasks of every dataset that is not whole, but those whose report stands."""
    for entry in states.values():
        if entry.status == "whole":
            continue
        inputs = {name: states[name].dataset for name in entry.stage.reads}
        for phase, step in entry.stage.steps():
            for index in range(step.tasks(entry.dataset.shards)):
                named = makes(entry, index) if phase == MAIN else ""
                task = Task(entry.stage, phase, index, entry.dataset, inputs, named)
                if not shard.report_of(task.folder, index):
                    yield task


def makes(entry: State, index: int) -> str:
    """Names the rows of a stage's main task, where it reads one leaf and nothing else."""
    step = entry.stage.main
    content = step.over[index].content if step.over else ""
    alone = content and not entry.stage.reads and not entry.stage.before
    return entry.material.of_leaf(content) if alone else ""


def groups_of(key: Key) -> Iterable[Group]:
    """The groups this task is a member of."""
    name, phase, index = key
    return (name, phase, None), (name, phase, index)


def needs(task: Task) -> Iterator[Group]:
    """The groups that must be done before this task may start."""
    # All of them, not the last alone: one of the chain may have no tasks.
    for phase, _ in task.stage.earlier(task.phase):
        yield task.stage.makes, phase, None
    step = task.step
    for name in step.each:
        yield name, MAIN, None if task.inputs[name].scattered else task.index
    for name in dict.fromkeys((*step.whole, *step.lookup, *step.after)):
        yield name, MAIN, None
