"""What can be done for stages before all that they read is whole, as it becomes ready.

It is done where there is room that nothing else needs, each item once: its report lies in a folder
of its own. Nothing waits for it but the end of the command.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b

from pipeline import shard
from pipeline.shard import Key, Task
from pipeline.stage import Item, Stage
from pipeline.state import State

ASK_S = 5.0
"""Between two questions what is ready."""

Waits = Callable[[str], bool]
"""Whether a task of a dataset waits for what it reads."""


class Early:
    """What stages can do ahead, of a run in these states."""

    def __init__(
        self, states: Mapping[str, State], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries = [entry for entry in states.values() if entry.stage.ahead]
        self._clock = clock
        self._asked: dict[str, float] = {}
        self._ready: dict[str, deque[Task]] = {}
        self._known: set[tuple[str, str]] = set()
        self._under_way: dict[Key, State] = {}
        self._whole: set[str] = set()

    def __bool__(self) -> bool:
        """Whether some of it is under way."""
        return bool(self._under_way)

    def pause(self, waits: Waits) -> float | None:
        """Seconds after which to ask again; None where there is no need to."""
        return ASK_S if any(waits(entry.stage.makes) for entry in self._entries) else None

    def next(self, waits: Waits, free: Callable[[Task], bool]) -> Task | None:
        """A task to start now, of the latest stage that still waits, where there is room."""
        for entry in reversed(self._entries):
            if waits(entry.stage.makes):
                ready = self._ask(entry)
                if ready and free(ready[0]):
                    self._under_way[ready[0].key] = entry
                    return ready.popleft()
        return None

    def finished(self, key: Key) -> bool:
        """Hear that a task is done; whether it was one of these."""
        entry = self._under_way.pop(key, None)
        if entry and entry.stage.makes in self._whole:
            self._forget(entry)
        return entry is not None

    def whole(self, entry: State) -> None:
        """Hear that a dataset is whole, perhaps once more: what was left for it is forgotten as
        soon as none of it is under way."""
        self._whole.add(entry.stage.makes)
        self._forget(entry)

    def _forget(self, entry: State) -> None:
        ahead = entry.stage.ahead
        if ahead and ahead.forget and entry not in self._under_way.values():
            ahead.forget()

    def _ask(self, entry: State) -> deque[Task]:
        name, now = entry.stage.makes, self._clock()
        ready = self._ready.setdefault(name, deque())
        if now - self._asked.get(name, -ASK_S) < ASK_S:
            return ready
        self._asked[name] = now
        assert entry.stage.ahead
        for item in entry.stage.ahead.ready():
            if (name, item.path) not in self._known:
                self._known.add((name, item.path))
                task = _task(entry, item)
                if not shard.report_of(task.folder, 0):
                    ready.append(task)
        return ready


def _task(entry: State, item: Item) -> Task:
    """A stage in itself, which leaves a report only."""
    ahead, dataset = entry.stage.ahead, entry.dataset
    assert ahead
    mark = blake2b(item.path.encode(), digest_size=8).hexdigest()
    name = f"{entry.stage.makes}, ahead, {item.path}"
    stage = Stage(makes=name, version=entry.stage.version, main=replace(ahead.step, over=(item,)))
    return Task(stage, "main", 0, shard.left_by(dataset, f"ahead/{mark}"), {})
