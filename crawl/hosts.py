"""A host of the frontier with what is left of it, and the hosts in order of how long they need.

Rule: jobs are held as they were handed in: a range of a million is three numbers. A host stands in
one place at a time, and an entry in another row that it has left is passed over.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import msgspec

Job = TypeVar("Job")
NEVER = -math.inf
IN_FLIGHT, WAITING, NOWHERE = -1, -2, -3
"""Places beside the rows of the hosts that may be asked, which count from 0."""
LEAST_S = 2.0**-10
"""A host that needs less is as short as any: without a delay, all are."""
ROWS_BELOW_1 = 16 * 10
"""Sixteen to each doubling, down to LEAST_S."""


class Host(msgspec.Struct, Generic[Job], gc=False, eq=False):
    """A host's jobs and its times. A million of them are held at once: nothing is here twice."""

    name: str
    delay_s: float
    jobs: Sequence[Job] = ()
    at: int = 0
    left: int = 0
    place: int = NOWHERE
    failures: int = 0
    crawl_delay_s: float = 0.0
    ended_at: float = NEVER
    free_at: float = NEVER
    began: float = math.inf
    first: list[Job] | None = None  # the next one at the end
    then: deque[Sequence[Job]] | None = None

    def put(self, jobs: Sequence[Job]) -> int:
        """Puts jobs at the end, and counts them."""
        if not jobs:
            return 0
        self.left += len(jobs)
        if self.at == len(self.jobs):
            self.jobs, self.at = jobs, 0
        elif self.then is None:
            self.then = deque([jobs])
        else:
            self.then.append(jobs)
        return len(jobs)

    def put_first(self, jobs: Iterable[Job]) -> int:
        """Puts jobs, in their order, before all others, and counts them."""
        listed = list(jobs)
        if listed:
            listed.reverse()
            if self.first is None:
                self.first = listed
            else:
                self.first += listed
            self.left += len(listed)
        return len(listed)

    def take(self) -> Job:
        """The first job; there must be one."""
        self.left -= 1
        if self.first is not None:
            job = self.first.pop()
            if not self.first:
                self.first = None
            return job
        job = self.jobs[self.at]
        self.at += 1
        if self.at == len(self.jobs):
            self.jobs, self.at = (), 0
            if self.then is not None:
                self.jobs = self.then.popleft()
                if not self.then:
                    self.then = None
        return job

    def take_all(self) -> list[Job]:
        """All jobs, in their order."""
        return [self.take() for _ in range(self.left)]

    def needs_s(self) -> float:
        """The politeness bound of what is left."""
        return self.left * self.delay_s


class LongestFirst(Generic[Job]):
    """Hosts that may be asked. Those whose needs differ by less than a sixteenth stand in one row,
    first come, first served; so each step costs the same, however many there are."""

    def __init__(self) -> None:
        self.count = 0
        self._rows: dict[int, deque[Host[Job]]] = {}
        self._filled = 0  # bit n: row n is not empty

    def put(self, host: Host[Job]) -> None:
        """Puts a host where it belongs, from wherever it was."""
        needs_s = host.left * host.delay_s
        mantissa, exponent = math.frexp(needs_s if needs_s > LEAST_S else LEAST_S)
        row = ROWS_BELOW_1 + exponent * 16 + int(mantissa * 32) - 16
        if row == host.place:
            return
        if host.place < 0:
            self.count += 1
        host.place = row
        hosts = self._rows.get(row)
        if hosts:
            hosts.append(host)
            return
        self._rows[row] = deque([host])
        self._filled |= 1 << row

    def take(self) -> Host[Job] | None:
        """A host of the longest row, which is then nowhere; None where there is none."""
        while self._filled:
            row = self._filled.bit_length() - 1
            hosts = self._rows[row]
            host = hosts.popleft()
            if not hosts:
                del self._rows[row]
                self._filled ^= 1 << row
            if host.place == row:
                host.place = NOWHERE
                self.count -= 1
                return host
        return None

    def leave(self, host: Host[Job]) -> None:
        """The host is nowhere from now on."""
        host.place = NOWHERE
        self.count -= 1

    def most_s(self) -> float:
        """What the longest of them needs."""
        for row in sorted(self._rows, reverse=True):
            needs = [host.needs_s() for host in self._rows[row] if host.place == row]
            if needs:
                return max(needs)
        return 0.0
