"""May this page be asked for? What is known of each origin first: its robots.txt, its TDM file.

Pure: pages and answers in, what to do out. Rule: a page is let through only by the robots.txt of
its own origin, and stopped by what the site says of AI where the recipe obeys it. A page that comes
before its origin is known is parked, and handed out again when it is.
"""

from dataclasses import dataclass

from crawl import consent, outcomes, robots, url
from crawl.config import CrawlConfig
from crawl.origins import Origins
from crawl.schema import PageOutcome
from crawl.work import OriginFile, Page


@dataclass(frozen=True)
class Open:
    """The page may be asked for; `said` is what its site says of AI."""

    said: tuple[str, ...]


@dataclass(frozen=True)
class Closed:
    """It may not."""

    outcome: PageOutcome
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """This file is to be asked for first; the page is parked."""

    file: OriginFile


@dataclass(frozen=True)
class Parked:
    """The page is parked behind another that waits for the same file."""


@dataclass(frozen=True)
class Elsewhere:
    """Its origin's robots.txt stands at another owner's: not in this round."""


Look = Open | Closed | Need | Parked | Elsewhere


class Gates:
    """What is known of the origins, and the pages that wait for more."""

    def __init__(self, config: CrawlConfig) -> None:
        self._obey = config.obey
        self._asks_tdm = config.tdm_file and "tdm" in config.obey
        self._token = config.product_token()
        self._origins = Origins()
        self._refusals: dict[str, PageOutcome] = {}  # of origins whose robots.txt cannot be had
        self._tdm: dict[str, consent.Reservations] = {}
        self._parked: dict[str, list[Page]] = {}
        self._elsewhere: set[str] = set()

    def look(self, page: Page, now: float) -> Look:
        """What to do with a page whose turn it is at the moment `now`."""
        origin = url.origin(page.target)
        if origin in self._parked:
            self._parked[origin].append(page)
            return Parked()
        if origin in self._elsewhere:
            return Elsewhere()
        rules = self._origins.known(origin, now)
        if rules is None:
            step = robots.begin(page.target, self._token)
            return self._need(page, OriginFile(page.work, "robots", origin, step.target, step))
        if not rules.allows(page.target):
            return Closed(self._refusal(origin, rules))
        said = rules.signals(page.target)
        if outcomes.refused(said, self._obey):
            return Closed(PageOutcome.OPTED_OUT, said)
        if self._asks_tdm and origin not in self._tdm:
            target = consent.tdm_location(page.target)
            if rules.allows(target):
                return self._need(page, OriginFile(page.work, "tdm", origin, target))
            self._tdm[origin] = consent.of_tdmrep(b"")
        if self._asks_tdm:
            said = (*said, *self._tdm[origin].signals(page.target))
        if outcomes.refused(said, self._obey):
            return Closed(PageOutcome.OPTED_OUT, said)
        return Open(said)

    def settle(
        self, origin: str, rules: robots.Rules, refusal: PageOutcome, now: float
    ) -> tuple[robots.Rules, list[Page]]:
        """What an origin's robots.txt gave is known; returns the rules that count, and who waited.
        `refusal`: how pages end where it could not be had."""
        self._elsewhere.discard(origin)
        self._refusals[origin] = refusal
        return self._origins.settle(origin, rules, now), self._parked.pop(origin, [])

    def reserve(self, origin: str, found: consent.Reservations) -> list[Page]:
        """What an origin's TDM file says is known; returns who waited for it."""
        self._tdm[origin] = found
        return self._parked.pop(origin, [])

    def unreachable_since(self, origin: str) -> float | None:
        """Since when the robots.txt of an origin cannot be had; None where it was had."""
        return self._origins.unreachable_since(origin)

    def remember(self, origin: str, since: float) -> None:
        """An earlier crawl found an origin's robots.txt unreachable since then."""
        self._origins.remember(origin, since)

    def put_off(self, origin: str) -> list[Page]:
        """The robots.txt of an origin stands at another owner's; returns who waited for it."""
        self._elsewhere.add(origin)
        return self._parked.pop(origin, [])

    def drop(self, origin: str) -> list[Page]:
        """Nobody asks for the file of an origin any more; returns who waited for it."""
        return self._parked.pop(origin, [])

    def _need(self, page: Page, file: OriginFile) -> Need:
        self._parked[file.origin] = [page]
        return Need(file)

    def _refusal(self, origin: str, rules: robots.Rules) -> PageOutcome:
        if rules.unreachable:
            return self._refusals.get(origin, PageOutcome.ROBOTS_UNREACHABLE)
        return PageOutcome.ROBOTS_DISALLOWED
