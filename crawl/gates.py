"""May this be asked for? What is known of each origin first: its robots.txt, its TDM file.

Pure: jobs and answers in, what to do out. Rule: a page is let through only by the robots.txt of
its own origin, and stopped by what the site says of AI where the recipe obeys it; so is a TDM file
that was redirected. What comes before its origin is known is parked, and handed out again when it
is.
"""

from dataclasses import dataclass

from crawl import consent, outcomes, robots, url
from crawl.config import CrawlConfig
from crawl.origins import Origins
from crawl.schema import PageOutcome
from crawl.work import Job, OriginFile, Page

MAX_BYTES = 64 * 1024 * 1024
"""What the rules of all origins may take, about, and what their TDM files; those known longest are
forgotten first."""


@dataclass(frozen=True)
class Open:
    """It may be asked for; `said` is what its site says of AI."""

    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Closed:
    """It may not."""

    outcome: PageOutcome
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """This file is to be asked for first; the job is parked."""

    file: OriginFile


@dataclass(frozen=True)
class Parked:
    """The job is parked behind another that waits for the same file."""


@dataclass(frozen=True)
class Elsewhere:
    """Its origin's robots.txt stands at another owner's: not in this round."""


Look = Open | Closed | Need | Parked | Elsewhere


class Gates:
    """What is known of the origins, and the jobs that wait for more."""

    def __init__(self, config: CrawlConfig, max_bytes: int = MAX_BYTES) -> None:
        self._obey = config.obey
        self._asks_tdm = config.tdm_file and "tdm" in config.obey
        self._token = config.product_token()
        self._origins = Origins(max_bytes=max_bytes)
        self._refusals: dict[str, PageOutcome] = {}  # of origins whose robots.txt cannot be had
        self._tdm = _Reserved(max_bytes)
        self._parked: dict[tuple[str, str], list[Job]] = {}
        self._elsewhere: set[str] = set()

    def look(self, job: Job, now: float) -> Look:
        """What to do with a job whose turn it is at the moment `now`."""
        if isinstance(job, OriginFile) and (job.kind != "tdm" or not job.hops):
            return Open()  # a robots.txt; or what its origin's was asked about already
        origin = url.origin(job.target)
        rules = self._origins.known(origin, now)
        if rules is None:
            if origin in self._elsewhere:
                return Elsewhere()
            step = robots.begin(job.target, self._token)
            return self._need(job, OriginFile(job.work, "robots", origin, step.target, step))
        if not rules.allows(job.target):
            return Closed(self._refusal(origin, rules))
        return Open() if isinstance(job, OriginFile) else self._consented(job, origin, rules)

    def settle(
        self, origin: str, rules: robots.Rules, refusal: PageOutcome, now: float
    ) -> tuple[robots.Rules, list[Job]]:
        """What an origin's robots.txt gave is known; returns the rules that count, and who waited.
        `refusal`: how pages end where it could not be had."""
        counts = self._origins.settle(origin, rules, now)
        self._elsewhere.discard(origin)
        self._tdm.forget(origin)  # as old as the rules
        self._refusals.pop(origin, None)
        if counts.unreachable:
            self._refusals[origin] = refusal
            if len(self._refusals) > 2 * len(self._origins):
                kept = self._refusals.items()
                self._refusals = {one: how for one, how in kept if one in self._origins}
        return counts, self._parked.pop(("robots", origin), [])

    def reserve(self, origin: str, body: bytes) -> list[Job]:
        """An origin's TDM file is known, or that there is none; returns who waited for it."""
        self._tdm.put(origin, body)
        return self._parked.pop(("tdm", origin), [])

    def unreachable_since(self, origin: str) -> float | None:
        """Since when the robots.txt of an origin cannot be had; None where it was had."""
        return self._origins.unreachable_since(origin)

    def remember(self, origin: str, since: float) -> None:
        """An earlier crawl found an origin's robots.txt unreachable since then."""
        self._origins.remember(origin, since)

    def put_off(self, origin: str) -> list[Job]:
        """The robots.txt of an origin stands at another owner's; returns who waited for it."""
        self._elsewhere.add(origin)
        return self._parked.pop(("robots", origin), [])

    def drop(self, file: OriginFile) -> list[Job]:
        """Nobody asks for a file of an origin any more; returns who waited for it."""
        return self._parked.pop((file.kind, file.origin), [])

    def _consented(self, page: Page, origin: str, rules: robots.Rules) -> Look:
        """What a site says of AI, to a page that its robots.txt lets through."""
        said = rules.signals(page.target)
        if outcomes.refused(said, self._obey):
            return Closed(PageOutcome.OPTED_OUT, said)
        if self._asks_tdm:
            found = self._tdm.of(origin)
            if found is None:
                target = consent.tdm_location(page.target)
                if rules.allows(target):
                    return self._need(page, OriginFile(page.work, "tdm", origin, target))
                found = consent.Reservations()
            said = (*said, *found.signals(page.target))
        if outcomes.refused(said, self._obey):
            return Closed(PageOutcome.OPTED_OUT, said)
        return Open(said)

    def _need(self, job: Job, file: OriginFile) -> Need | Parked:
        key = file.kind, file.origin
        if key in self._parked:
            self._parked[key].append(job)
            return Parked()
        self._parked[key] = [job]
        return Need(file)

    def _refusal(self, origin: str, rules: robots.Rules) -> PageOutcome:
        if rules.unreachable:
            return self._refusals.get(origin, PageOutcome.ROBOTS_UNREACHABLE)
        return PageOutcome.ROBOTS_DISALLOWED


class _Reserved:
    """What the TDM files of origins say. Asking again after a forgotten one is always right."""

    def __init__(self, max_bytes: int) -> None:
        self._found: dict[str, tuple[consent.Reservations, int]] = {}
        self._bytes, self._max_bytes = 0, max_bytes

    def of(self, origin: str) -> consent.Reservations | None:
        found = self._found.get(origin)
        return found[0] if found else None

    def put(self, origin: str, body: bytes) -> None:
        self.forget(origin)
        found = consent.of_tdmrep(body)
        weight = 300 + (20 * len(body) if found.rules else 0)
        self._found[origin] = found, weight
        self._bytes += weight
        while self._bytes > self._max_bytes and len(self._found) > 1:
            self.forget(next(iter(self._found)))

    def forget(self, origin: str) -> None:
        if found := self._found.pop(origin, None):
            self._bytes -= found[1]
