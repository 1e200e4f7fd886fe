"""Asks the live web for links, one polite request after another, until each has an observation.

Rule: every request, of a page, a robots.txt or a redirect, is a turn that the frontier gave; and
none is made that the robots.txt of its own origin does not allow, redirects' targets included. A
host that the frontier has lost is not asked again: what is left of it ends as its last failure did.
"""

import asyncio
import datetime
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

from crawl import content, network, robots, url, warc
from crawl import observations as ledger
from crawl.config import CrawlConfig
from crawl.frontier import Ask, Done, Drop, Frontier
from crawl.network import Exchange, Failure
from crawl.pace import Pace
from crawl.schema import BadInput, Observation, PageOutcome

# Of a host to which no connection can be made this is the outcome, not that of its robots.txt.
NO_HOST = frozenset({PageOutcome.UNREACHABLE, PageOutcome.TLS_ERROR, PageOutcome.PRIVATE_ADDRESS})

Row = dict[str, Any]
Clock = Callable[[], float]
Now = Callable[[], datetime.datetime]


async def crawl(
    todo: list[Row], writer: ledger.Writer, config: CrawlConfig, clock: Clock, now: Now
) -> None:
    """Appends one observation for each link of `todo` (link_id, url_key, fetch_url, host) to the
    ledger. Raises BadInput for settings with which nobody should be asked; what else goes wrong
    here, such as a full disk, is raised as it is, never in a group."""
    require_contact(config)
    frontier: Frontier[_Job] = Frontier(Pace.of(config), config.connections)
    by_host: dict[str, list[_Job]] = {}
    for link in todo:
        page = _Page(link, url.without_fragment(link["fetch_url"]))
        by_host.setdefault(link["host"], []).append(page)
    for host, pages in by_host.items():
        frontier.add(host, pages)
    failed: Exception | None = None
    try:
        async with network.session(config) as web, asyncio.TaskGroup() as group:
            await _Crawl(frontier, web, writer, config, clock, now, group).run()
    except ExceptionGroup as errors:
        failed = _first(errors)
    if failed:
        raise failed


def require_contact(config: CrawlConfig) -> None:
    """BadInput where the live web would be asked by nobody in particular."""
    if config.live and not config.user_agent:
        raise BadInput(
            "crawl.user_agent: is needed to ask the live web: `name/1.0 (+https://your.page)`, or "
            "set crawl.live = false"
        )


def _first(error: Exception) -> Exception:
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


@dataclass(frozen=True)
class _Page:
    """A link on its way: where it stands after `hops` redirects."""

    link: Row
    target: str
    hops: int = 0
    attempts: int = 0


@dataclass(frozen=True)
class _Robots:
    """A robots.txt on its way, for the origin that it will speak for."""

    origin: str
    target: str
    hops: int = 0
    attempts: int = 0


@dataclass(frozen=True)
class _Verdict:
    rules: robots.Rules
    refusal: PageOutcome
    at: float


_Job = _Page | _Robots


class _Crawl:
    """The state of one crawl: what each origin allows, and who waits to be told."""

    def __init__(
        self,
        frontier: Frontier[_Job],
        web: network.Web,
        writer: ledger.Writer,
        config: CrawlConfig,
        clock: Clock,
        now: Now,
        group: asyncio.TaskGroup,
    ) -> None:
        self.frontier, self.web, self.writer = frontier, web, writer
        self.config, self.clock, self.now, self.group = config, clock, now, group
        self.token = config.product_token()
        self.asked = json.dumps({"user_agent": config.user_agent})
        self.verdicts: dict[str, _Verdict] = {}
        self.parked: dict[str, list[_Page]] = {}
        self.causes: dict[str, PageOutcome] = {}  # of each host's last failure
        self.wake = asyncio.Event()

    async def run(self) -> None:
        while not isinstance(step := self.frontier.next(self.clock()), Done):
            if isinstance(step, Ask):
                self.begin(step.host, step.job)
                continue
            if isinstance(step, Drop):
                self.drop(step.host, step.job)
                continue
            self.wake.clear()
            pause = None if step.until is None else max(0.0, step.until - self.clock())
            try:
                await asyncio.wait_for(self.wake.wait(), pause)
            except TimeoutError:
                continue

    def begin(self, host: str, job: _Job) -> None:
        """Uses a turn of a host: for the job, or for the robots.txt that it needs first."""
        if isinstance(job, _Robots):
            self.start(job.target, self.ask_robots(host, job))
            return
        origin = url.origin(job.target)
        if origin in self.parked:
            self.parked[origin].append(job)
            self.frontier.unused(host)
            return
        verdict = self.verdicts.get(origin)
        if verdict is None or self.clock() - verdict.at > robots.CACHE_S:
            self.parked[origin] = [job]
            first = _Robots(origin, robots.location(job.target))
            self.start(first.target, self.ask_robots(host, first))
        elif verdict.rules.allows(job.target):
            self.start(job.target, self.ask_page(host, job))
        else:
            self.record(job, verdict.refusal)
            self.frontier.unused(host)

    def start(self, target: str, work: Coroutine[Any, Any, None]) -> None:
        """Lets a request go its way beside the others."""

        async def named() -> None:
            try:
                await work
            except OSError as error:
                error.add_note(f"while asking for {target}")
                raise
            except Exception as error:
                text = f"asking for {target} failed: {type(error).__name__}: {error}"
                raise RuntimeError(text) from error

        self.group.create_task(named())

    def drop(self, host: str, job: _Job) -> None:
        """Settles a job of a host that is not asked again."""
        cause = PageOutcome.OVER_HOST_BUDGET
        if self.frontier.lost(host):
            cause = self.causes[host]
        if isinstance(job, _Robots):
            self.settle(job, None, b"", cause)
        else:
            self.record(job, cause)

    async def ask_robots(self, host: str, job: _Robots) -> None:
        moment = self.now()
        failed, cause = False, PageOutcome.ROBOTS_UNREACHABLE
        try:
            exchange = await network.ask(
                self.web, job.target, self.config, first=robots.MAX_BYTES + 1
            )
        except Failure as failure:
            failed = failure.passing
            if failure.outcome in NO_HOST or not failure.connected:
                cause = failure.outcome
            if not (failed and self.retry(host, job)):
                self.settle(job, None, b"", cause)
        else:
            failed = _passes(exchange.answer.status)
            if not (failed and self.retry(host, job)):
                self.archive(job.target, moment, exchange)
                self.robots_answered(job, exchange)
        self.end(host, cause if failed else None)

    def robots_answered(self, job: _Robots, exchange: Exchange) -> None:
        answer = exchange.answer
        target = _redirect(job.target, answer)
        if target is not None and job.hops < robots.MAX_REDIRECTS:
            if _same_site(job.target, target):
                hop = replace(job, target=target, hops=job.hops + 1, attempts=0)
                self.frontier.again(url.host(target), [hop])
                return
            self.settle(job, None, b"")
            return
        try:
            coding = answer.header("Content-Encoding")
            body = content.first(answer.body, coding, robots.MAX_BYTES + 1)
        except content.Undecodable:
            self.settle(job, None, b"")
            return
        self.settle(job, answer.status, body)

    def settle(
        self,
        job: _Robots,
        status: int | None,
        body: bytes,
        cause: PageOutcome = PageOutcome.ROBOTS_UNREACHABLE,
    ) -> None:
        """An origin's rules are known: those who waited for them go on, before all others."""
        rules = robots.verdict(status, body, self.token)
        refusal = cause if rules.unreachable else PageOutcome.ROBOTS_DISALLOWED
        self.verdicts[job.origin] = _Verdict(rules, refusal, self.clock())
        owner = url.host(job.origin)
        if (delay_s := rules.crawl_delay_s()) is not None:
            self.frontier.slow(owner, delay_s)
        self.frontier.again(owner, list(self.parked.pop(job.origin)))

    async def ask_page(self, host: str, job: _Page) -> None:
        moment, began = self.now(), self.clock()
        failed, cause = False, PageOutcome.HTTP_ERROR
        try:
            exchange = await network.ask(self.web, job.target, self.config)
        except Failure as failure:
            failed, cause = failure.passing, failure.outcome
            if not (failed and self.retry(host, job)):
                self.record(job, failure.outcome, moment=moment, elapsed_s=self.clock() - began)
        else:
            failed = _passes(exchange.answer.status)
            if not (failed and self.retry(host, job)):
                self.page_answered(job, exchange, moment, self.clock() - began)
        self.end(host, cause if failed else None)

    def page_answered(
        self, job: _Page, exchange: Exchange, moment: datetime.datetime, elapsed_s: float
    ) -> None:
        place = self.archive(job.target, moment, exchange)
        outcome = _outcome(exchange)
        final_url = job.target
        if (target := _redirect(job.target, exchange.answer)) is not None:
            if not target:
                outcome = PageOutcome.PROTOCOL_ERROR
            elif not _same_site(job.target, target):
                outcome, final_url = PageOutcome.REDIRECTED_OFFSITE, target
            elif job.hops >= self.config.max_redirects:
                outcome = PageOutcome.REDIRECT_LOOP
            else:
                hop = replace(job, target=target, hops=job.hops + 1, attempts=0)
                self.frontier.again(url.host(target), [hop])
                return
        job = replace(job, target=final_url)
        self.record(job, outcome, exchange, place, moment=moment, elapsed_s=elapsed_s)

    def retry(self, host: str, job: _Job) -> bool:
        """Puts a job back, if it has an attempt left."""
        if job.attempts >= self.config.retries:
            return False
        self.frontier.again(host, [replace(job, attempts=job.attempts + 1)])
        return True

    def archive(self, target: str, moment: datetime.datetime, exchange: Exchange) -> warc.Place:
        answer, request = exchange.answer, exchange.request
        return self.writer.archive(
            warc.Exchange(target, moment, answer, request, exchange.truncated)
        )

    def record(
        self,
        job: _Page,
        outcome: PageOutcome,
        exchange: Exchange | None = None,
        place: warc.Place | None = None,
        *,
        moment: datetime.datetime | None = None,
        elapsed_s: float | None = None,
    ) -> None:
        answer = exchange.answer if exchange else None
        row = Observation(
            link_id=job.link["link_id"],
            url_key=job.link["url_key"],
            url=job.link["fetch_url"],
            outcome=outcome,
            source="live",
            status=answer.status if answer else None,
            final_url=job.target,
            content_type=answer.header("Content-Type") if answer else None,
            content_encoding=answer.header("Content-Encoding") if answer else None,
            bytes=len(answer.body) if answer else None,
            digest=warc.digest(answer.body) if answer else None,
            fetched_at=moment or self.now(),
            elapsed_s=elapsed_s,
            asked=self.asked,
        )
        self.writer.append(row, place)

    def end(self, host: str, cause: PageOutcome | None) -> None:
        """A turn of a host is over; `cause` is a failure that may pass."""
        if cause:
            self.causes[host] = cause
        self.frontier.ended(host, self.clock(), failed=cause is not None)
        self.wake.set()


def _passes(status: int) -> bool:
    return status == 429 or 500 <= status < 600


def _redirect(base: str, answer: warc.Answer) -> str | None:
    """Where an answer sends to, without a fragment; "" where that cannot be asked for, or only with
    a password; None where it sends nowhere."""
    location = answer.header("Location")
    if answer.status not in (301, 302, 303, 307, 308) or not location:
        return None
    try:
        target = url.fetch_url(urljoin(base, location.strip()))
    except ValueError:
        return ""
    return url.without_fragment(target) if target and not url.has_credentials(target) else ""


def _same_site(one: str, other: str) -> bool:
    domain = url.registrable_domain
    return bool(other) and domain(url.host(one)) == domain(url.host(other))


def _outcome(exchange: Exchange) -> PageOutcome:
    answer = exchange.answer
    kind, coding = answer.header("Content-Type"), answer.header("Content-Encoding")
    cut = exchange.truncated is not None
    return content.outcome(answer.status, kind, coding, answer.body, cut=cut)
