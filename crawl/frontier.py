"""Whose turn is it? Queues of hosts and their delays: no socket, no clock, no URL.

Rule: a request to a host never begins before the last one ended and its delay has passed since, so
that the host itself never sees two any closer. A host that keeps failing is left alone for longer
and longer, within a bound, and is lost at last: none can hold up the crawl for ever. Whatever goes
over the network is a turn given by `next`, robots.txt and redirects too, so the rule holds for the
whole crawl. Among hosts that may be asked, the longest queue goes first: the crawl cannot end
before its longest host does.
"""

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job")
NEVER = float("-inf")


@dataclass(frozen=True)
class Ask(Generic[Job]):
    """The host may be asked now for this."""

    host: str
    job: Job


@dataclass(frozen=True)
class Wait:
    """Nothing may be asked before this moment, or before a request in flight ends (None)."""

    until: float | None


@dataclass(frozen=True)
class Done:
    """Nothing is left to ask, and nothing is in flight."""


@dataclass
class _Host(Generic[Job]):
    delay_s: float
    queue: deque[Job] = field(default_factory=deque)
    ended_at: float = NEVER
    not_before: float = NEVER
    failures: int = 0
    busy: bool = False
    queued: bool = False


class Frontier(Generic[Job]):
    """Queues by host. Times are seconds of any clock that never runs backwards."""

    def __init__(
        self, *, delay_s: float, back_off_s: float, max_back_off_s: float, patience: int, limit: int
    ) -> None:
        """`delay_s`: between two requests to a host. `back_off_s`: after a failure, doubled with
        each one in a row up to `max_back_off_s`; after `patience` of them the host is lost.
        `limit`: requests in flight at once."""
        self._delay_s = delay_s
        self._back_off_s, self._max_back_off_s = back_off_s, max_back_off_s
        self._patience = patience
        self._limit = limit
        self._hosts: dict[str, _Host[Job]] = {}
        self._ready: list[tuple[int, str]] = []  # minus the length of the queue, host
        self._waiting: list[tuple[float, str]] = []  # earliest moment, host
        self._in_flight = 0

    def add(self, host: str, jobs: Iterable[Job]) -> None:
        """Puts jobs at the end of a host's queue."""
        self._host(host).queue.extend(jobs)
        self._queue(host)

    def again(self, host: str, jobs: list[Job]) -> None:
        """Puts jobs, in their order, before all others of a host: what was begun is ended first."""
        self._host(host).queue.extendleft(reversed(jobs))
        self._queue(host)

    def slow(self, host: str, delay_s: float) -> None:
        """From now on the host is asked no more often than this; a delay never shrinks."""
        slot = self._host(host)
        slot.delay_s = max(slot.delay_s, delay_s)

    def next(self, now: float) -> Ask[Job] | Wait | Done:
        """What to do at the moment `now`. After an Ask, `ended` or `unused` must be told."""
        while self._waiting and self._waiting[0][0] <= now:
            name = heapq.heappop(self._waiting)[1]
            heapq.heappush(self._ready, (-len(self._hosts[name].queue), name))
        if self._in_flight >= self._limit:
            return Wait(None)
        while self._ready:
            name = heapq.heappop(self._ready)[1]
            earliest = self._earliest(self._hosts[name])
            if earliest <= now:
                return self._ask(name)
            heapq.heappush(self._waiting, (earliest, name))  # slowed down since it was queued
        if self._waiting:
            return Wait(self._waiting[0][0])
        return Wait(None) if self._in_flight else Done()

    def ended(self, host: str, now: float, *, failed: bool = False) -> None:
        """The request of a turn is over; `failed` in a way that may pass."""
        slot = self._hosts[host]
        slot.ended_at = now
        slot.failures = slot.failures + 1 if failed else 0
        slot.not_before = now + (self._pause_s(slot.failures) if failed else 0.0)
        self._free(host)

    def lost(self, host: str) -> bool:
        """Whether the host failed too often in a row to be asked again."""
        return self._hosts[host].failures >= self._patience

    def unused(self, host: str) -> None:
        """The turn was not used: nothing went over the network, nothing need be waited for."""
        self._free(host)

    def _host(self, name: str) -> _Host[Job]:
        if name not in self._hosts:
            self._hosts[name] = _Host(self._delay_s)
        return self._hosts[name]

    def _pause_s(self, failures: int) -> float:
        if failures >= self._patience:
            return 0.0  # what is left of a lost host need not wait to be told so
        # 64 times doubled is beyond any bound, and still a number
        return min(self._back_off_s * 2.0 ** min(failures - 1, 64), self._max_back_off_s)

    def _ask(self, name: str) -> Ask[Job]:
        slot = self._hosts[name]
        slot.queued = False
        slot.busy = True
        self._in_flight += 1
        return Ask(name, slot.queue.popleft())

    def _free(self, name: str) -> None:
        self._hosts[name].busy = False
        self._in_flight -= 1
        self._queue(name)

    def _queue(self, name: str) -> None:
        slot = self._hosts[name]
        if slot.queue and not slot.busy and not slot.queued:
            slot.queued = True
            heapq.heappush(self._waiting, (self._earliest(slot), name))

    def _earliest(self, slot: _Host[Job]) -> float:
        return max(slot.ended_at + slot.delay_s, slot.not_before)
