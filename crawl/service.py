"""One crawler for a process, shared by all its tasks: a thread with a loop, for as long as needed.

Tasks of a process, each in a thread of its own, hand their jobs to it and wait. It begins with the
first and ends with the last. What goes wrong in it is raised in every task.
"""

import asyncio
import contextlib
import gc
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path

import uvloop

from crawl import limits, network, status, steering
from crawl.config import CrawlConfig
from crawl.crawler import Crawler
from crawl.schema import BadInput
from crawl.turns import Clock, Now
from crawl.work import Work

LOOK_S = 1.0
"""Seconds between two looks at what the operator says, the disk, the files; and a status."""
TURN_S = 0.2
"""Seconds between two looks whether a task is wanted back."""
TASKS = 1024
"""That one process holds at once, at most."""
COLLECT = (5000, 20, 20)
"""Thresholds of Python's garbage collector while there is a crawler: it holds thousands of requests
that are no garbage, and by the usual ones looks through them again and again."""
USUAL = gc.get_threshold()

_LOCK = threading.Lock()
_RUNNING: "dict[tuple[int, str], Service]" = {}


class Stopped(RuntimeError):
    """The operator wants the crawl to end; what is left is asked for by the next one."""


class Released(RuntimeError):
    """A task was wanted back before all of it was asked for."""


def require_contact(config: CrawlConfig) -> None:
    """BadInput where the live web would be asked by nobody in particular."""
    if config.live and not config.user_agent:
        raise BadInput(
            "crawl.user_agent: is needed to ask the live web: `name/1.0 (+https://your.page)`, or "
            "set crawl.live = false"
        )


@contextlib.contextmanager
def shared(config: CrawlConfig, ledger: Path, clock: Clock, now: Now) -> "Iterator[Service]":
    """This process's crawler for a ledger, begun if nobody uses it yet."""
    key = os.getpid(), str(ledger)
    with _LOCK:
        running = _RUNNING.get(key)
        if running is None or running.failure is not None:
            running = _RUNNING[key] = Service(config, ledger, clock, now)
        running.users += 1
    try:
        yield running
    finally:
        with _LOCK:
            running.users -= 1
            last = running.users == 0
            if last and _RUNNING.get(key) is running:
                del _RUNNING[key]
        if last:
            running.close()


class Service:
    """A crawler in a thread of its own. See `shared`."""

    def __init__(self, config: CrawlConfig, ledger: Path, clock: Clock, now: Now) -> None:
        require_contact(config)
        limits.require(config, ledger, min(TASKS, config.shards))
        self.users = 0
        self.failure: BaseException | None = None
        self._config, self._ledger, self._clock, self._now = config, ledger, clock, now
        self._watch = steering.Watch(ledger.parent / steering.FILE)
        self._rates = status.Rates()
        self._ends: Exception | None = None
        """Why nobody is asked any more."""
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._started: Future[tuple[asyncio.AbstractEventLoop, Crawler]] = Future()
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._live, name="crawler", daemon=True)
        self._thread.start()
        self._loop, self.crawler = self._started.result()

    def ask(self, work: Work, wanted_back: Callable[[], bool] = lambda: False) -> None:
        """Has a task's jobs asked for; returns when all are settled. Raises Stopped, Released,
        `limits.Short`, or what went wrong."""
        asked, released = self._begin(work), False
        try:
            while not wait([asked], TURN_S).done:
                if not self._thread.is_alive():  # so that nobody will settle it
                    raise self._why()
                if not released and (released := wanted_back()):
                    self._tell(lambda: self.crawler.release(work))
        except BaseException:
            self._leave(asked, work)
            raise
        try:
            asked.result()
        except CancelledError:
            raise self._why() from None
        if work.given_back:
            raise self._ends or Released()

    def close(self) -> None:
        """Ends the crawler; what is in flight is let go."""
        if self._end is not None:
            self._tell(self._end.set)
        self._thread.join()

    def _begin(self, work: Work) -> Future[None]:
        request = self._asked(work)
        try:
            return asyncio.run_coroutine_threadsafe(request, self._loop)
        except RuntimeError as error:  # its loop has ended since
            request.close()
            raise self._why() from error

    def _leave(self, asked: Future[None], work: Work) -> None:
        """A task is interrupted. What is in flight for it must not end in a ledger that is closed:
        the crawler ends with it, or for the sake of other tasks is waited for."""
        self._tell(lambda: self.crawler.release(work))
        while self.users > 1 and self._thread.is_alive() and not wait([asked], TURN_S).done:
            pass

    def _tell(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is there to be told
            self._loop.call_soon_threadsafe(what)

    def _why(self) -> BaseException:
        """Why the crawler has ended."""
        self._thread.join()
        return self.failure or Stopped("the crawl was ended")

    def _live(self) -> None:
        gc.set_threshold(*COLLECT)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001  -- raised in every task
            self.failure = error
            if not self._started.done():
                self._started.set_exception(error)
        finally:
            gc.set_threshold(*USUAL)

    async def _main(self) -> None:
        self._end = asyncio.Event()
        async with network.session(self._config) as web:
            crawler = Crawler(web, self._config, self._clock, self._now)
            self._started.set_result((asyncio.get_running_loop(), crawler))
            jobs = [
                asyncio.create_task(one)
                for one in (crawler.run(), self._look_around(crawler), self._end.wait())
            ]
            try:
                done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
                for job in done:
                    job.result()
            except BaseException as error:
                self.failure = error
                raise
            finally:
                for job in jobs:
                    job.cancel()
                await asyncio.gather(*jobs, return_exceptions=True)
                with contextlib.suppress(OSError):  # it is for who looks; why it ended is raised
                    self._show(crawler, ended=True)

    async def _asked(self, work: Work) -> None:
        self._look(self.crawler)
        work.released = self._ends is not None
        await self.crawler.ask(work)

    async def _look_around(self, crawler: Crawler) -> None:
        """What the operator says, what the machine still has, how far it is: now and then."""
        while True:
            self._look(crawler)
            crawler.tick()
            self._show(crawler)
            await asyncio.sleep(LOOK_S)

    def _look(self, crawler: Crawler) -> None:
        """What the operator says, and what the machine has, or has no more: then what is in flight
        is ended, and all else given back."""
        said, held = self._watch.look(), False
        try:
            limits.require_space(self._config, self._ledger)
            held = limits.scarce(crawler.frontier.counts().in_flight)
            if said.state == "stop":
                raise Stopped("stopped as asked; the same command goes on")
        except (limits.Short, Stopped) as error:
            self._ends = self._ends or error
        crawler.steer(said, held=held and not self._ends)
        if self._ends:
            crawler.release_all()

    def _show(self, crawler: Crawler, *, ended: bool = False) -> None:
        """How far it is, for who wants to know."""
        measured = crawler.measure()
        measured.complaint, measured.ended = self._watch.complaint, ended
        self._rates.tell(measured)
        status.write(self._ledger, self._name, measured)
