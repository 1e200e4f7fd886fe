"""Whose turn is it? Queues of hosts and their delays: no socket, no clock, no URL.

Rule: a request to a host never begins before the last one ended and its delay has passed since, so
that the host itself never sees two any closer. A host that keeps failing is left alone for longer
and longer, within a bound, and is lost at last: none can hold up the crawl for ever. Whatever goes
over the network is a turn given by `next`, robots.txt and redirects too, so the rule holds for the
whole crawl. Among hosts that may be asked, the one that needs longest, what is left of it times its
delay, goes first: the crawl cannot end before its longest host does.

Hosts are kept apart by their names: two of one registrable domain have a delay each, and are asked
at the same time. That all of a domain are in one frontier is for the caller to see to; who would
space requests by domain hands in domains for hosts.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic

import msgspec

from crawl.hosts import IN_FLIGHT, NEVER, NOWHERE, WAITING, Host, Job, LongestFirst
from crawl.pace import Pace


class Ask(msgspec.Struct, Generic[Job], frozen=True):
    """The host may be asked now for this. `ended` or `unused` must be told."""

    host: str
    job: Job


class Drop(msgspec.Struct, Generic[Job], frozen=True):
    """The host is lost or over its time: it is not asked for this, whose outcome is to be written.
    No turn was given: nothing must be told."""

    host: str
    job: Job


class Wait(msgspec.Struct, frozen=True):
    """Nothing may be asked before this moment, or before a request in flight ends (None)."""

    until: float | None


class Done(msgspec.Struct, frozen=True):
    """Nothing is left to ask, and nothing is in flight."""


UNTIL_ONE_ENDS, DONE = Wait(None), Done()


class Counts(msgspec.Struct, frozen=True):
    """How it stands: hosts that may be asked, that wait for their delay, that are being asked;
    hosts lost so far; jobs that no turn was given for yet."""

    ready: int
    waiting: int
    in_flight: int
    lost: int
    jobs: int


class Frontier(Generic[Job]):
    """Queues by host. Times are seconds of any clock that never runs backwards."""

    def __init__(self, pace: Pace, limit: int) -> None:
        """`limit`: requests in flight at once."""
        self._pace = pace
        self._limit = limit
        self._timed = pace.max_host_s < math.inf
        # Each host is ready, waiting or in flight; nowhere are those with nothing left of which
        # something is known that must not be forgotten, or not yet.
        self._hosts: dict[str, Host[Job]] = {}
        self._ready: LongestFirst[Job] = LongestFirst()
        self._waiting: list[tuple[float, str, Host[Job]]] = []  # each once; may be too early
        self._idle = 0  # of those that wait: with nothing left
        self._done: deque[tuple[float, Host[Job]]] = deque()  # when to forget it
        self._in_flight: dict[str, Host[Job]] = {}
        self._lost: set[str] = set()
        self._over_time: set[str] = set()
        self._dropped: dict[str, Host[Job]] = {}
        self._left = 0

    def add(self, host: str, jobs: Sequence[Job], *, not_before: float = NEVER) -> None:
        """Puts jobs at the end of a host's queue, which is held as it is and must not change;
        `not_before`: see `hold`."""
        slot = self._slot(host)
        slot.free_at = max(slot.free_at, not_before)
        self._grow(slot, slot.put(jobs))

    def again(self, host: str, jobs: Iterable[Job]) -> None:
        """Puts jobs, in their order, before all others of a host: what was begun is ended first."""
        slot = self._slot(host)
        self._grow(slot, slot.put_first(jobs))

    def slow(self, host: str, delay_s: float) -> None:
        """From now on the host is asked no more often than this, a Crawl-delay; it never shrinks,
        and counts up to the pace's bound."""
        slot = self._slot(host)
        slot.crawl_delay_s = max(slot.crawl_delay_s, delay_s)
        slot.delay_s = max(slot.delay_s, self._pace.delay_s(delay_s, 0.0))
        slot.free_at = max(slot.free_at, slot.ended_at + slot.delay_s)
        self._moved(slot)

    def hold(self, host: str, until: float) -> None:
        """The host is not asked before this moment."""
        slot = self._slot(host)
        slot.free_at = max(slot.free_at, until)
        self._moved(slot)

    def next(self, now: float) -> Ask[Job] | Drop[Job] | Wait | Done:
        """What to do at the moment `now`."""
        if self._dropped:
            return self._drop()
        if len(self._in_flight) >= self._limit:
            return UNTIL_ONE_ENDS
        if self._waiting and self._waiting[0][0] <= now:
            self._wake(now)
        while (slot := self._ready.take()) is not None:
            if slot.free_at > now:
                self._wait(slot)  # slowed down or held since it was ready
            elif slot.began + self._pace.max_host_s <= now:
                self._close(slot, self._over_time)
                return self._drop()
            else:
                return self._ask(slot, now)
        if len(self._waiting) > self._idle:
            return Wait(self._waiting[0][0])
        return UNTIL_ONE_ENDS if self._in_flight else DONE

    def ended(
        self,
        host: str,
        now: float,
        *,
        latency_s: float | None = None,
        failed: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        """The request of a turn is over, after `latency_s` where that was measured; `failed` in a
        way that may pass. `retry_after_s`: what the answer asks for, counted up to a bound."""
        slot = self._landed(host)
        slot.ended_at = now
        if latency_s is not None:
            slot.delay_s = self._pace.delay_s(slot.crawl_delay_s, latency_s)
        pause_s = slot.delay_s
        if failed:
            slot.failures += 1
            if slot.failures >= self._pace.max_failures:
                self._close(slot, self._lost)
                return
            pause_s = max(pause_s, self._pace.pause_s(slot.failures))
        elif slot.failures:
            slot.failures = 0
        if retry_after_s is not None:
            pause_s = max(pause_s, min(retry_after_s, self._pace.max_retry_after_s))
        if now + pause_s > slot.free_at:  # it may be held for longer
            slot.free_at = now + pause_s
        self._wait(slot)

    def unused(self, host: str) -> None:
        """The turn was not used: nothing went over the network, nothing need be waited for."""
        slot = self._landed(host)
        if slot.ended_at == NEVER:
            slot.began = math.inf
        self._wait(slot)

    def lost(self, host: str) -> bool:
        """Whether the host failed too often in a row to be asked again in this crawl."""
        return host in self._lost

    def drain(self, host: str) -> list[Job]:
        """Takes away what is left of a host, in its order: of one that is lost, over its time or
        denied, or that another frontier goes on with. What is in flight stays so."""
        slot = self._dropped.pop(host, None) or self._hosts.get(host)
        if slot is None or not slot.left:
            return []
        jobs = slot.take_all()
        self._left -= len(jobs)
        if slot.place >= 0:
            self._ready.leave(slot)
            self._wait(slot)
        elif slot.place == WAITING:
            self._idle += 1
        return jobs

    def left(self, host: str) -> int:
        """How many jobs of a host no turn was given for yet."""
        slot = self._hosts.get(host) or self._dropped.get(host)
        return slot.left if slot else 0

    def counts(self) -> Counts:
        """How it stands as of the last `next`, at no cost."""
        return Counts(
            ready=self._ready.count,
            waiting=len(self._waiting) - self._idle,
            in_flight=len(self._in_flight),
            lost=len(self._lost),
            jobs=self._left,
        )

    def bound_s(self) -> float:
        """The politeness bound of what is left: the most that any host still needs, its jobs times
        its delay as it is now. Looks at all hosts that wait: for every few seconds."""
        waiting = max((entry[2].needs_s() for entry in self._waiting), default=0.0)
        in_flight = max((slot.needs_s() for slot in self._in_flight.values()), default=0.0)
        return max(self._ready.most_s(), waiting, in_flight)

    def _slot(self, name: str) -> Host[Job]:
        slot = self._hosts.get(name) or self._dropped.get(name)
        if slot is None:
            slot = Host(name, self._pace.min_delay_s)
            if name not in self._lost and name not in self._over_time:
                self._hosts[name] = slot
        return slot

    def _grow(self, slot: Host[Job], count: int) -> None:
        """So many jobs were put to a host."""
        self._left += count
        if slot.place == WAITING and count == slot.left > 0:
            self._idle -= 1
        self._moved(slot)

    def _moved(self, slot: Host[Job]) -> None:
        """A host has more jobs or a longer delay than it had: it goes where it belongs now."""
        if slot.name not in self._hosts:
            if slot.left:
                self._dropped[slot.name] = slot
        elif slot.place >= 0 or (slot.place == NOWHERE and slot.left and slot.free_at == NEVER):
            self._ready.put(slot)
        elif slot.place == NOWHERE:
            self._wait(slot)

    def _wait(self, slot: Host[Job]) -> None:
        slot.place = WAITING
        if not slot.left:
            self._idle += 1
        heapq.heappush(self._waiting, (slot.free_at, slot.name, slot))

    def _wake(self, now: float) -> None:
        """Makes ready whose delay has passed."""
        while self._waiting and self._waiting[0][0] <= now:
            slot = heapq.heappop(self._waiting)[2]
            if slot.left:
                self._ready.put(slot)  # whether it was slowed down since, `next` sees
                continue
            self._idle -= 1
            if slot.free_at > now:
                self._wait(slot)
                continue
            slot.place = NOWHERE
            self._done.append((now + self._pace.max_delay_s, slot))
        while self._done and self._done[0][0] <= now:
            self._forget(self._done.popleft()[1], now)

    def _forget(self, slot: Host[Job], now: float) -> None:
        """No delay that is told of the host from now on could concern its last request; but what
        holds for a later one is kept."""
        if slot.failures or slot.crawl_delay_s > self._pace.min_delay_s or self._timed:
            return
        again = slot.place != NOWHERE or slot.ended_at + self._pace.max_delay_s > now
        if not again and self._hosts.get(slot.name) is slot:
            del self._hosts[slot.name]

    def _ask(self, slot: Host[Job], now: float) -> Ask[Job]:
        slot.place = IN_FLIGHT
        self._in_flight[slot.name] = slot
        self._left -= 1
        if slot.began > now:
            slot.began = now
        return Ask(slot.name, slot.take())

    def _landed(self, name: str) -> Host[Job]:
        slot = self._in_flight.pop(name, None)
        if slot is None:
            raise ValueError(f"{name} is not being asked: the end of its turn was told already")
        return slot

    def _close(self, slot: Host[Job], among: set[str]) -> None:
        """The host is not asked again: only its name is kept, and what is to be dropped."""
        among.add(slot.name)
        slot.place = NOWHERE
        del self._hosts[slot.name]
        if slot.left:
            self._dropped[slot.name] = slot

    def _drop(self) -> Drop[Job]:
        name, slot = self._dropped.popitem()
        job = slot.take()
        self._left -= 1
        if slot.left:
            self._dropped[name] = slot
        return Drop(name, job)
