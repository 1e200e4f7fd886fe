"""Gives the turns of the frontier to requests, and lets these go their way beside each other.

Rule: a turn is used for one request or for none; what a request fails with that is no outcome ends
the whole, as it is, with the address that met it.
"""

import asyncio
import contextlib
import datetime
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from crawl.frontier import Ask, Drop, Frontier, Wait
from crawl.pace import Pace
from crawl.work import Job

TURNS = 64
"""Turns given at once, before what came in is looked at."""
CREDIT_S = 1.0
"""Of bytes that were not taken, how much may be made up for."""

Clock = Callable[[], float]
Now = Callable[[], datetime.datetime]
Request = Coroutine[Any, Any, None]
Use = Callable[[str, Job], Request | None]
"""What a host's turn is used for: a request for the job, or for what it needs first; or nothing."""
Unasked = Callable[[str, Job], None]
"""Settles the job of a host that is not asked again."""


class Turns:
    """A frontier, and the requests that are under way."""

    def __init__(
        self,
        pace: Pace,
        limit: int,
        clock: Clock,
        use: Use,
        unasked: Unasked,
        received: Callable[[], int] = lambda: 0,
    ) -> None:
        """`limit`: requests in flight at once. `received`: bytes that came so far."""
        self.frontier: Frontier[Job] = Frontier(pace, limit)
        self.held = False
        """Nobody is asked for the moment."""
        self.max_bytes_per_s = 0
        """Taken from the network, on the average; 0: no bound."""
        self._clock, self._use, self._unasked = clock, use, unasked
        self._received, self._counted, self._paid_until = received, 0, clock()
        self._wake = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    def wake(self) -> None:
        """Something has changed: look whose turn it is."""
        self._wake.set()

    async def give(self) -> None:
        """Gives turns until cancelled. What goes wrong, such as a full disk, is raised as it is,
        never in a group."""
        failed: Exception | None = None
        try:
            async with asyncio.TaskGroup() as self._group:
                await self._give()
        except ExceptionGroup as errors:
            failed = _first(errors)
        if failed:
            raise failed

    async def _give(self) -> None:
        while True:
            pause = self._some()
            if pause == 0.0:
                await asyncio.sleep(0)
                continue
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                continue

    def _some(self) -> float | None:
        """Gives turns; returns the seconds after which there may be more, None: when something
        ends."""
        for _ in range(TURNS):
            if self.held:
                return None
            if (debt := self._debt_s()) > 0:
                return debt
            match self.frontier.next(self._clock()):
                case Ask(host, job):
                    self._begin(host, job)
                case Drop(host, job):
                    self._unasked(host, job)
                case Wait(until) if until is not None:
                    return max(1e-3, until - self._clock())
                case _:
                    return None
        return 0.0

    def _debt_s(self) -> float:
        """Seconds until the bytes that came are not more than may."""
        now, received = self._clock(), self._received()
        came, self._counted = received - self._counted, received
        if not self.max_bytes_per_s:
            self._paid_until = now
            return 0.0
        self._paid_until = max(self._paid_until, now - CREDIT_S) + came / self.max_bytes_per_s
        return self._paid_until - now

    def _begin(self, host: str, job: Job) -> None:
        with _named(job.target):
            request = self._use(host, job)
        if request is None:
            self.frontier.unused(host)
            return
        assert self._group is not None
        asked = _asked(request, job.target)
        try:
            self._group.create_task(asked)
        except RuntimeError:  # another has failed in this very turn of the loop
            asked.close()
            request.close()
            raise


async def _asked(request: Request, target: str) -> None:
    with _named(target):
        await request


@contextlib.contextmanager
def _named(target: str) -> Iterator[None]:
    """What goes wrong says what it went wrong with."""
    try:
        yield
    except OSError as error:
        error.add_note(f"while asking for {target}")
        raise
    except Exception as error:
        text = f"asking for {target} failed: {type(error).__name__}: {error}"
        raise RuntimeError(text) from error


def _first(error: Exception) -> Exception:
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
