"""How long a host is left alone: after an answer, a failure, a Retry-After.

Rule: no figure here reaches beyond the recipe's bounds, and none falls below its least delay; a
value that cannot be read asks for nothing.
"""

import datetime
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from crawl.config import CrawlConfig

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = f"(?P<month>{'|'.join(MONTHS)})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
# RFC 9110, 5.6.7; what a server says of the day of the week is not held against it
DATES = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"[a-z]{{3}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        rf"[a-z]{{6,9}}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        rf"[a-z]{{3}} {_MONTH} (?P<day>[0-9 ][0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)
SECONDS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Pace:
    """What a recipe says of delays, under the same names; seconds all but two. The defaults make
    a frontier that knows no failure, for a test or a trial."""

    min_delay_s: float
    max_delay_s: float = math.inf
    latency_factor: float = 0.0
    max_retry_after_s: float = math.inf
    back_off_s: float = 0.0
    max_failures: int = 1 << 31
    max_host_s: float = math.inf

    @classmethod
    def of(cls, config: CrawlConfig) -> "Pace":
        """The pace that a recipe asks for."""
        return cls(
            min_delay_s=config.min_delay_s,
            max_delay_s=config.max_delay_s,
            latency_factor=config.latency_factor,
            max_retry_after_s=config.max_retry_after_s,
            back_off_s=config.back_off_s,
            max_failures=config.max_failures,
            max_host_s=math.inf if config.max_host_s is None else config.max_host_s,
        )

    def delay_s(self, crawl_delay_s: float, latency_s: float) -> float:
        """From the end of one request to the next: the Crawl-delay or some times the last latency,
        whichever is more, within the bounds. Of bounds that cross, the least delay holds."""
        delay_s = self.latency_factor * latency_s
        if crawl_delay_s > delay_s:
            delay_s = crawl_delay_s
        if delay_s > self.max_delay_s:
            delay_s = self.max_delay_s
        return delay_s if delay_s > self.min_delay_s else self.min_delay_s

    def pause_s(self, failures: int) -> float:
        """After so many failures in a row, one at least: twice as long with each, up to a bound."""
        # 64 times doubled is beyond any bound, and still a number
        return min(self.back_off_s * 2.0 ** min(failures - 1, 64), self.max_delay_s)


def bound_s(pages: Iterable[int], delay_s: float, most: int | None = None) -> float:
    """The politeness bound: no polite crawl of hosts with so many pages, of which it asks `most` at
    most of each, is over in fewer seconds, whatever the machines."""
    longest = max(pages, default=0)
    return delay_s * (longest if most is None else min(longest, most))


def retry_after(value: str, now: datetime.datetime) -> float | None:
    """Seconds that a Retry-After asks for (RFC 9110, 10.2.3), from `now`, which knows its zone: a
    number, which may be infinite, or a date in any of the three forms, 0 where it is past. None
    where the value is neither."""
    text = value.strip(" \t")
    if SECONDS.fullmatch(text):
        return float(text)
    for form in DATES:
        if found := form.fullmatch(text):
            moment = _moment(found.groupdict(), now)
            return None if moment is None else max(0.0, (moment - now).total_seconds())
    return None


def _moment(parts: dict[str, str], now: datetime.datetime) -> datetime.datetime | None:
    second = int(parts["second"])
    try:
        moment = datetime.datetime(
            _year(parts["year"], now),
            MONTHS.index(parts["month"].lower()) + 1,
            int(parts["day"]),
            int(parts["hour"]),
            int(parts["minute"]),
            min(second, 59),  # 60 in a minute with a leap second
            tzinfo=datetime.UTC,
        )
    except ValueError:
        return None
    return moment if second <= 60 else None


def _year(digits: str, now: datetime.datetime) -> int:
    """Of two digits, none that is more than 50 years ahead (RFC 9110, 5.6.7)."""
    if len(digits) == 4:
        return int(digits)
    first = now.year - 49
    return first + (int(digits) - first) % 100
