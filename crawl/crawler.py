"""Asks the live web for links, one polite request after another, until each has an observation.

One crawler multiplexes the hosts of all tasks of a process. Rule: every request, of a page, a
robots.txt or a redirect, is a turn that the frontier gave; and none is made that the robots.txt of
its own origin does not allow, redirects' targets included. A host that the frontier has lost is not
asked again: what is left of it ends as its last failure did.
"""

import datetime
from dataclasses import replace

from crawl import consent, content, gates, network, outcomes, robots, url
from crawl.config import CrawlConfig
from crawl.gates import Gates
from crawl.hosts import NEVER
from crawl.jobs import Jobs
from crawl.network import Failure, Web
from crawl.outcomes import Asked
from crawl.pace import Pace
from crawl.schema import PageOutcome
from crawl.status import Status
from crawl.steering import Steering
from crawl.turns import Clock, Now, Request, Turns
from crawl.warc import Answer, Exchange, Place
from crawl.work import UNASKED, Fetched, Job, OriginFile, Page, Work

# Of a host to which no connection can be made this is the outcome, not that of its robots.txt.
NO_HOST = frozenset({PageOutcome.UNREACHABLE, PageOutcome.TLS_ERROR, PageOutcome.PRIVATE_ADDRESS})
BOUND_S = 10.0
"""Seconds between two sums over all hosts."""
OURS = frozenset({PageOutcome.DENIED, PageOutcome.OVER_HOST_BUDGET})
"""Of files that were not asked for: nothing is known of who was not asked."""


class Crawler:
    """The state of one crawl: whose turn it is, what each origin allows, who waits to be told."""

    def __init__(self, web: Web, config: CrawlConfig, clock: Clock, now: Now) -> None:
        self.web, self.config, self.clock, self.now = web, config, clock, now
        self.turns = Turns(
            Pace.of(config), config.connections, clock, self._use, self._drop, lambda: web.received
        )
        self.frontier = self.turns.frontier
        self.gates = Gates(config)
        self.jobs = Jobs(self.turns, self.gates, config, clock, now)
        self.token = config.product_token()
        self.asked = Asked(config.user_agent)
        self.status = Status(began=clock())
        self._steering = Steering()
        self._works: list[Work] = []
        self._measured = NEVER

    async def ask(self, work: Work) -> None:
        """Takes a task's jobs, and returns when all are settled."""
        moment, now = self.now(), self.clock()
        # first: since when a file cannot be had counts for what is told of it now
        for origin, since in work.notes.unreachable(moment):
            self.gates.remember(origin, now - since)
        for origin, got in work.rules.items():
            rules = robots.verdict(got.status, got.body, self.token)
            _, waited = self.gates.settle(origin, rules, PageOutcome.ROBOTS_UNREACHABLE, now)
            self.jobs.asked_to_slow_down(url.host(origin), work, rules.crawl_delay_s() or 0.0)
            if got.status != UNASKED:
                self._note_since(work, origin)
            self.jobs.go_on(waited)
        work.begin()
        self._works.append(work)
        self.jobs.add(work)
        for host, jobs in work.queues():
            self.status.expect(host, len(jobs) * self.jobs.delay_s(work, host))
        if work.released:
            self.jobs.release(work)
        self.turns.wake()
        await work.done.wait()
        self._works.remove(work)

    def release(self, work: Work) -> None:
        """Gives back what a task has not begun: its other jobs end as they are on their way."""
        if not work.released:
            self.jobs.release(work)

    def release_all(self) -> None:
        """Gives back all that was not begun."""
        for work in list(self._works):
            self.release(work)

    def tick(self) -> None:
        """Makes durable what was written, of tasks to which nothing happens for a while."""
        for work in self._works:
            work.writer.tick()
            work.visitors.tick()

    def measure(self) -> Status:
        """How far the crawl is."""
        counts, status, now = self.frontier.counts(), self.status, self.clock()
        status.seconds, status.left = now - status.began, counts.jobs
        status.active, status.waiting = counts.ready + counts.in_flight, counts.waiting
        status.in_flight, status.state = counts.in_flight, self._steering.state
        status.received = self.web.received
        if now - self._measured >= BOUND_S or (status.left and not status.left_s):
            status.left_s, self._measured = self.frontier.bound_s(), now
        return status

    async def run(self) -> None:
        """Asks until cancelled. What goes wrong here, such as a full disk, is raised as it is."""
        await self.turns.give()

    def steer(self, steering: Steering, *, held: bool) -> None:
        """What the operator says from now on. `held`: nobody is to be asked, whatever he says."""
        self._steering = steering
        self.turns.held = held or steering.state == "pause"
        bound = steering.max_bytes_per_s
        self.turns.max_bytes_per_s = self.config.max_bytes_per_s if bound is None else bound
        self.turns.wake()

    def _use(self, host: str, job: Job) -> Request | None:
        """What a host's turn is used for: the job, or the file that it needs first, or nothing."""
        if job.work.released:
            self.jobs.let_go(job)
            return None
        if isinstance(job, Page):
            return self._use_for_page(host, job)
        if url.host(job.origin) != host and self._steering.shuts(job.target):
            self._file_failed(job, PageOutcome.DENIED)
            return None
        match self.gates.look(job, self.clock()):
            case gates.Open():
                return self._ask_file(host, job)
            case gates.Need(file):
                return self._ask_file(host, file)
            case gates.Closed() | gates.Elsewhere():
                self._tdm_known(job, b"")
        return None

    def _use_for_page(self, host: str, page: Page) -> Request | None:
        if self._steering.denies(page.target):
            self._record(page, PageOutcome.DENIED)
            return None
        match self.gates.look(page, self.clock()):
            case gates.Open(said):
                return self._ask_page(host, page, said)
            case gates.Need(file):
                return self._ask_file(host, file)
            case gates.Closed(outcome, said):
                self._record(page, outcome, said=said)
            case gates.Elsewhere():
                page.work.put_off(page)
        return None

    async def _ask_file(self, host: str, file: OriginFile) -> None:
        moment, began = self.now(), self.clock()
        cause, wait_s, connected = None, None, True
        try:
            await network.find(self.web, file.target)
            moment, began = self.now(), self.clock()
            most = robots.MAX_BYTES + 1
            exchange = await network.ask(self.web, file.target, moment, most=most)
        except Failure as failure:
            connected = failure.connected
            refusal = PageOutcome.ROBOTS_UNREACHABLE
            if failure.outcome in NO_HOST or not failure.connected:
                refusal = failure.outcome
            cause = refusal if failure.passing else None
            if not (cause and self.jobs.retry(host, file)):
                self._file_failed(file, refusal)
        else:
            answer = exchange.answer
            if outcomes.passes(answer.status):
                cause = PageOutcome.ROBOTS_UNREACHABLE
                wait_s = self.jobs.asked_to_wait(host, file, answer)
            if not (cause and self.jobs.retry(host, file)):
                file.work.writer.archive(exchange, {"purpose": f"{file.kind} of {file.origin}"})
                self._file_answered(file, exchange)
        self.jobs.ended(host, file.work, began if connected else None, cause, wait_s)

    def _file_answered(self, file: OriginFile, exchange: Exchange) -> None:
        if file.step is None:
            self._tdm_answered(file, exchange.answer)
            return
        answer = exchange.answer
        led = robots.answered(
            file.step, answer.status, answer.headers, answer.body, truncated=exchange.truncated
        )
        if isinstance(led, robots.Rules):
            if file.kind == "handed":
                self._hand_over(file, Fetched.of(file.origin, led, answer))
            else:
                self._rules_known(file, led)
        elif outcomes.same_site(file.target, led.target):
            self.jobs.hop(replace(file, target=led.target, step=led, attempts=0))
        else:
            file.work.elsewhere.append(led)
            self._hand_over(file)

    def _tdm_answered(self, file: OriginFile, answer: Answer) -> None:
        target = outcomes.redirect(file.target, answer)
        if target and file.hops < robots.MAX_REDIRECTS and outcomes.same_site(file.target, target):
            self.jobs.hop(replace(file, target=target, hops=file.hops + 1, attempts=0))
            return
        self._tdm_known(file, outcomes.plain(answer, consent.TDM_BYTES + 1))

    def _tdm_known(self, file: OriginFile, body: bytes) -> None:
        self.jobs.go_on(self.gates.reserve(file.origin, body))

    def _file_failed(self, file: OriginFile, refusal: PageOutcome) -> None:
        """There was no answer, and is none to be had for now."""
        if file.step is None:
            self._tdm_known(file, b"")
        elif file.kind == "handed":
            unasked = UNASKED if refusal in OURS else None
            self._hand_over(file, Fetched(file.origin, unasked, b""))
        else:
            self._rules_known(file, robots.failed(file.step), refusal)

    def _hand_over(self, file: OriginFile, fetched: Fetched | None = None) -> None:
        """A robots.txt is for another owner to ask for, or to be told what it says: who waits for
        it here is asked for in a later round."""
        if fetched:
            file.work.fetched.append(fetched)
        if file.kind == "handed":
            file.work.settled()
        for job in self.gates.put_off(file.origin) if file.kind == "robots" else ():
            if isinstance(job, Page):
                job.work.put_off(job)
            else:
                self._tdm_known(job, b"")

    def _rules_known(
        self,
        file: OriginFile,
        found: robots.Rules,
        refusal: PageOutcome = PageOutcome.ROBOTS_UNREACHABLE,
    ) -> None:
        """An origin's rules are known: those who waited for them go on, before all others."""
        rules, waited = self.gates.settle(file.origin, found, refusal, self.clock())
        host, delay_s = url.host(file.origin), rules.crawl_delay_s() or 0.0
        delay_s = self.jobs.asked_to_slow_down(host, file.work, delay_s)
        self.status.expect(host, (self.frontier.left(host) + len(waited)) * delay_s)
        if refusal not in OURS:
            self._note_since(file.work, file.origin)
        self.jobs.go_on(waited)

    def _note_since(self, work: Work, origin: str) -> None:
        """Keeps since when the robots.txt of an origin cannot be had, or that it was had."""
        since = self.gates.unreachable_since(origin)
        ago = None if since is None else datetime.timedelta(seconds=self.clock() - since)
        work.notes.reached(origin, None if ago is None else self.now() - ago)

    async def _ask_page(self, host: str, page: Page, said: tuple[str, ...]) -> None:
        moment, began = self.now(), self.clock()
        cause, wait_s, connected = None, None, True
        try:
            await network.find(self.web, page.target)
            moment, began = self.now(), self.clock()
            exchange = await network.ask(
                self.web, page.target, moment, most=self.config.max_bytes, wanted=self._wanted
            )
        except Failure as failure:
            connected = failure.connected
            cause = failure.outcome if failure.passing else None
            if not (cause and self.jobs.retry(host, page)):
                elapsed_s = self.clock() - began
                self._record(page, failure.outcome, moment=moment, elapsed_s=elapsed_s, said=said)
        else:
            if outcomes.passes(exchange.answer.status):
                cause = PageOutcome.HTTP_ERROR
                wait_s = self.jobs.asked_to_wait(host, page, exchange.answer)
            if not (cause and self.jobs.retry(host, page)):
                self._page_answered(page, exchange, self.clock() - began, said)
        self.jobs.ended(host, page.work, began if connected else None, cause, wait_s)

    def _wanted(self, answer: Answer) -> bool:
        """Whether the body of an answer is worth reading: that of an error tells why."""
        if not 200 <= answer.status < 300:
            return True
        said = consent.of_headers(answer.headers, self.token)
        kind = answer.header("Content-Type")
        return content.may_be_html(kind) and not outcomes.refused(said, self.config.obey)

    def _page_answered(
        self, page: Page, exchange: Exchange, elapsed_s: float, said: tuple[str, ...]
    ) -> None:
        outcome, hop = self._where(page, exchange)
        if outcome is None:
            page.work.writer_of(page).archive(exchange, self._note(page, said))
            self.jobs.hop(hop)
            return
        said = (*said, *outcomes.signals(exchange.answer, self.token, outcome))
        if outcome in outcomes.USABLE and outcomes.refused(said, self.config.obey):
            outcome = PageOutcome.OPTED_OUT
            if exchange.answer.body:
                bare = replace(exchange.answer, body=b"")
                exchange = replace(exchange, answer=bare, truncated="unspecified")
        place = page.work.writer_of(page).archive(exchange, self._note(page, said))
        self._record(
            hop, outcome, exchange, place, moment=exchange.moment, elapsed_s=elapsed_s, said=said
        )

    def _where(self, page: Page, exchange: Exchange) -> tuple[PageOutcome | None, Page]:
        """How an answer ends a page; no outcome: it goes on at the target."""
        target = outcomes.redirect(page.target, exchange.answer)
        if target is None:
            return outcomes.of_answer(exchange), page
        if not target:
            return PageOutcome.PROTOCOL_ERROR, page
        if page.hops >= self.config.max_redirects:
            return PageOutcome.REDIRECT_LOOP, page
        hop = replace(page, target=target, hops=page.hops + 1, attempts=0)
        if outcomes.same_site(page.target, target):
            return None, hop
        return PageOutcome.REDIRECTED_OFFSITE, hop

    def _drop(self, host: str, job: Job) -> None:
        """Settles a job of a host that is lost, or had its time: it is not asked."""
        if job.work.released:
            self.jobs.let_go(job)
        elif isinstance(job, Page):
            self._record(job, self.jobs.dropped(host))
        else:
            self._file_failed(job, self.jobs.dropped(host))

    def _note(self, page: Page, said: tuple[str, ...]) -> dict[str, str]:
        note = {"link-id": page.link_id.hex(), "link": page.url, "robots": "allowed"}
        return note | ({"ai-signals": text} if (text := consent.joined(said)) else {})

    def _record(
        self,
        page: Page,
        outcome: PageOutcome,
        exchange: Exchange | None = None,
        place: Place | None = None,
        *,
        moment: datetime.datetime | None = None,
        elapsed_s: float | None = None,
        said: tuple[str, ...] = (),
    ) -> None:
        row = outcomes.row(
            page,
            outcome,
            asked=self.asked,
            moment=moment or self.now(),
            elapsed_s=elapsed_s,
            exchange=exchange,
            said=said,
        )
        page.work.writer_of(page).append(row, place)
        self.status.count(outcome)
        page.work.settled()
