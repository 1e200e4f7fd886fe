"""Where jobs go: into the queues of their hosts, on to other hosts, back to who handed them in.

Rule: a job is in one place until it is settled, once. Of a task that is wanted back nothing goes
into a queue any more, a page between two redirects neither: it ends as soon as what is in flight
has ended, be the crawl paused, or a host one that wants to be left alone for an hour.
"""

import datetime
from collections.abc import Iterable
from dataclasses import replace

import msgspec

from crawl import url
from crawl.config import CrawlConfig
from crawl.gates import Gates
from crawl.hosts import NEVER
from crawl.pace import Pace, retry_after
from crawl.schema import PageOutcome
from crawl.turns import Clock, Now, Turns
from crawl.warc import Answer
from crawl.work import Job, OriginFile, Work


class Jobs:
    """The jobs of all tasks of a process, as far as they are not being asked for."""

    def __init__(
        self, turns: Turns, gates: Gates, config: CrawlConfig, clock: Clock, now: Now
    ) -> None:
        self._turns, self._frontier, self._gates = turns, turns.frontier, gates
        self._config, self._clock, self._now = config, clock, now
        self._pace = Pace.of(config)
        self._causes: dict[str, PageOutcome] = {}  # of hosts whose last request failed

    def add(self, work: Work) -> None:
        """Queues all jobs of a task, each host's so that it is left alone as it asked earlier."""
        work.began_at = self._clock()
        for host, jobs in work.queues():
            self._frontier.add(host, jobs, not_before=self._not_before(work, host))

    def release(self, work: Work) -> None:
        """Gives back what a task has not begun: what is in flight ends."""
        work.released = True
        for host in {host for host, _ in work.queues()} | work.strays:
            left = self._frontier.drain(host)
            if others := [job for job in left if not job.work.released]:
                self._frontier.again(host, others)
            for job in left:
                if job.work.released:
                    self.let_go(job)
        self._turns.wake()

    def let_go(self, job: Job) -> None:
        """Gives a job back: somebody else asks. Who waits here for a file asks for it himself."""
        if isinstance(job, OriginFile) and job.kind != "handed":
            self.go_on(self._gates.drop(job))
        else:
            job.work.give_back()

    def go_on(self, waited: Iterable[Job]) -> None:
        """Puts those who waited for a file of their origin before all others of its host."""
        left = []
        for job in waited:
            if job.work.released:
                self.let_go(job)
            else:
                left.append(job)
        if left:
            self._frontier.again(url.host(left[0].target), left)

    def hop(self, job: Job) -> None:
        """Puts a job that was redirected before all others of the host that it leads to."""
        work, host = job.work, url.host(job.target)
        if work.released:
            self.let_go(job)
            return
        work.strays.add(host)
        if work.notes.begun:
            self._frontier.hold(host, self._not_before(work, host))
        self._frontier.again(host, [job])

    def retry(self, host: str, job: Job) -> bool:
        """Puts a job that failed back, if it has an attempt left: another service's, if its task
        is wanted back."""
        if job.attempts >= self._config.retries:
            return False
        if job.work.released:
            self.let_go(job)
        else:
            self._frontier.again(host, [replace(job, attempts=job.attempts + 1)])
        return True

    def ended(
        self,
        host: str,
        work: Work,
        began: float | None,
        cause: PageOutcome | None,
        wait_s: float | None,
    ) -> None:
        """A turn of a host is over. `began`: when it could be asked, if it let itself be; `cause`
        is a failure that may pass."""
        if cause:
            self._causes[host] = cause
        else:
            self._causes.pop(host, None)
        now = self._clock()
        latency_s = None if began is None else now - began
        if (rest_s := self._pace.delay_s(0.0, latency_s or 0.0)) > self._pace.min_delay_s:
            work.notes.rest(host, rest_s)
        self._frontier.ended(
            host, now, latency_s=latency_s, failed=cause is not None, retry_after_s=wait_s
        )
        self._turns.wake()

    def dropped(self, host: str) -> PageOutcome:
        """The outcome of what is left of a host that is lost, or had its time."""
        if self._frontier.lost(host):
            return self._causes[host]
        return PageOutcome.OVER_HOST_BUDGET

    def asked_to_wait(self, host: str, job: Job, answer: Answer) -> float | None:
        """The seconds that a server that has had enough wants to be left alone."""
        value = answer.header("Retry-After")
        if answer.status not in (429, 503) or value is None:
            return None
        wait_s = retry_after(value, self._now())
        if wait_s is not None:
            wait_s = min(wait_s, self._config.max_retry_after_s)
            # to the millisecond, which is never the one before
            until = self._now() + datetime.timedelta(seconds=wait_s, milliseconds=1)
            notes = job.work.notes
            notes.tell(msgspec.structs.replace(notes.about(host), until=until))
        return wait_s

    def asked_to_slow_down(self, host: str, work: Work, delay_s: float) -> float:
        """A host's robots.txt has a Crawl-delay, or none: 0; returns what of it counts."""
        delay_s = min(delay_s, self._config.max_delay_s)
        if delay_s <= self._config.min_delay_s:
            return 0.0
        self._frontier.slow(host, delay_s)
        notes = work.notes
        notes.tell(msgspec.structs.replace(notes.about(host), delay_s=delay_s))
        return delay_s

    def delay_s(self, work: Work, host: str) -> float:
        """The delay of a host, as far as it is known before it was asked."""
        return max(self._config.min_delay_s, work.notes.delay_s(host))

    def _not_before(self, work: Work, host: str) -> float:
        """When a host may first be asked: at once, unless an earlier crawl asked it."""
        if not work.notes.begun:
            return NEVER
        delay_s = max(self._config.min_delay_s, work.notes.full_delay_s(host))
        free_at, until = work.began_at + delay_s, work.notes.until(host)
        if until:
            # a clock that was far ahead when it was told must not hold a host for ever
            wait_s = min((until - self._now()).total_seconds(), self._config.max_retry_after_s)
            free_at = max(free_at, self._clock() + wait_s)
        return free_at
