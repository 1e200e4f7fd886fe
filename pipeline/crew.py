"""Who of some long-lived processes, the *members*, holds which of the tasks that they share.

Pure: members join and die here by number. Rule: until it is done, a task waits or is held by one
member. Each holds about the same number; one that idles while another holds several gets of those,
once that one has given them back.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

from pipeline.shard import Key, Task

RETRIES = 3
"""Lost processes that one task may outlive within `WITHIN_S`."""
WITHIN_S = 3600.0
"""A task that kills its process does so again soon; in weeks many a machine is lost."""


class Crew:
    """The tasks of one kind that are not done, `together` of them at most on one member."""

    def __init__(self, together: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._together = together
        self._clock = clock
        self._waiting: deque[Task] = deque()
        self._starting: set[int] = set()
        self._held: dict[int, dict[Key, Task]] = {}
        self._asked: set[Key] = set()
        self._losses: dict[Key, list[float]] = {}

    def __len__(self) -> int:
        """How many tasks are not done."""
        return len(self._waiting) + sum(map(len, self._held.values()))

    @property
    def members(self) -> int:
        """How many there are; those that have not started yet, too."""
        return len(self._starting) + len(self._held)

    def take(self, task: Task) -> None:
        """Let a task wait for a member."""
        self._waiting.append(task)

    def hire(self, member: int) -> None:
        """A member will come."""
        self._starting.add(member)

    def started(self, member: int) -> None:
        """It is here."""
        self._starting.discard(member)
        self._held[member] = {}

    def handed_out(self) -> Iterator[tuple[int, Task]]:
        """Which member is given which of the tasks that wait; those still to come have a share."""
        share = -(-len(self) // max(1, self.members))
        while self._waiting and self._held:
            member = min(self._held, key=self._load)
            if self._load(member) >= min(share, self._together):
                return
            task = self._waiting.popleft()
            self._held[member][task.key] = task
            yield member, task

    def asked_back(self) -> Iterator[tuple[int, Key]]:
        """Which tasks their members are to give back, because another idles: the youngest of what
        is more than an equal share; at least one of who holds several."""
        if self._waiting or all(self._held.values()):
            return
        share = -(-len(self) // len(self._held))
        most = max(self._held, key=self._load)
        if self._load(most) == share > 1 and not self._asked:
            yield from self._ask(most, 1)
        for member in self._held:
            yield from self._ask(member, self._load(member) - share)

    def _ask(self, member: int, count: int) -> Iterator[tuple[int, Key]]:
        keys = list(self._held[member])
        asked = self._asked.intersection(keys)
        left = [key for key in reversed(keys) if key not in asked]
        for key in left[: max(0, count - len(asked))]:
            self._asked.add(key)
            yield member, key

    def done(self, member: int, key: Key) -> None:
        """A member has done a task."""
        self._release(member, key)
        self._losses.pop(key, None)

    def given_back(self, member: int, key: Key) -> None:
        """A member has stopped a task: it waits again."""
        self._waiting.append(self._release(member, key))

    def _release(self, member: int, key: Key) -> Task:
        self._asked.discard(key)
        return self._held[member].pop(key)

    def died(self, member: int) -> list[Task]:
        """A member is lost, and its tasks wait again; those of them that were lost too often. One
        that never started is held against the task that waits longest."""
        self._starting.discard(member)
        lost = list(self._held.pop(member, {}).values())
        self._asked.difference_update(task.key for task in lost)
        blamed = lost or list(self._waiting)[:1]
        self._waiting.extendleft(reversed(lost))
        return [task for task in blamed if self._too_often(task.key)]

    def _too_often(self, key: Key) -> bool:
        now = self._clock()
        losses = [at for at in self._losses.get(key, []) if now - at < WITHIN_S] + [now]
        self._losses[key] = losses
        return len(losses) > RETRIES

    def first(self) -> Key:
        """The task that waits longest, or one that is held. There must be one."""
        return next(chain((task.key for task in self._waiting), self.held()))

    def held(self) -> list[Key]:
        """The tasks that members hold."""
        return list(chain.from_iterable(self._held.values()))

    def _load(self, member: int) -> int:
        return len(self._held[member])
