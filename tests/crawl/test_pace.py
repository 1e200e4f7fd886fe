"""How long a host is left alone: within the recipe's bounds, and as RFC 9110 says of dates."""

import datetime
import math
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl.config import CrawlConfig
from crawl.pace import Pace, bound_s, retry_after

NOW = datetime.datetime(1994, 11, 6, 8, 49, 7, tzinfo=datetime.UTC)
SECONDS = st.floats(0.0, 1e6)


def test_a_recipe_names_the_pace() -> None:
    config = CrawlConfig(min_delay_s=2.0, max_delay_s=30.0, latency_factor=3.0, max_failures=4)
    pace = Pace.of(config)
    assert (pace.min_delay_s, pace.max_delay_s, pace.latency_factor) == (2.0, 30.0, 3.0)
    assert (pace.back_off_s, pace.max_failures, pace.max_retry_after_s) == (5.0, 4, 3600.0)
    assert pace.max_host_s == math.inf
    assert Pace.of(CrawlConfig(max_host_s=9.0)).max_host_s == 9.0


@pytest.mark.parametrize(
    ("crawl_delay_s", "latency_s", "delay_s"),
    [
        (0.0, 0.0, 1.0),  # the least
        (0.0, 0.4, 1.0),
        (0.0, 0.8, 1.6),  # twice the latency
        (5.0, 0.8, 5.0),  # the Crawl-delay
        (5.0, 4.0, 8.0),
        (86400.0, 0.1, 20.0),  # the most
        (0.0, 30.0, 20.0),
    ],
)
def test_a_delay_is_the_longest_of_three_within_bounds(
    crawl_delay_s: float, latency_s: float, delay_s: float
) -> None:
    pace = Pace(min_delay_s=1.0, max_delay_s=20.0, latency_factor=2.0)
    assert pace.delay_s(crawl_delay_s, latency_s) == delay_s


@given(SECONDS, SECONDS, st.floats(0.0, 10.0), SECONDS, SECONDS)
def test_no_delay_leaves_its_bounds(
    least: float, most: float, factor: float, crawl_delay_s: float, latency_s: float
) -> None:
    pace = Pace(min_delay_s=least, max_delay_s=most, latency_factor=factor)
    assert least <= pace.delay_s(crawl_delay_s, latency_s) <= max(least, most)


def test_a_back_off_doubles_up_to_its_bound_whatever_the_number() -> None:
    pace = Pace(min_delay_s=1.0, max_delay_s=60.0, back_off_s=5.0)
    pauses = [pace.pause_s(failures) for failures in (1, 2, 3, 4, 5, 6, 10**9)]
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0]


def test_the_bound_is_that_of_the_longest_host_as_far_as_it_is_asked() -> None:
    assert bound_s([3, 50, 7], 2.0) == 100.0
    assert bound_s([3, 50, 7], 2.0, 20) == 40.0
    assert bound_s([3], 2.0, 20) == 6.0
    assert bound_s([], 2.0) == 0.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" \t0 ", 0.0),
        ("00010", 10.0),
        ("9" * 5000, math.inf),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 30.0),
        ("Sun Nov  6 08:49:37 1994", 30.0),
        ("Wed Nov 16 08:49:37 1994", 10 * 86400 + 30.0),
        ("sun, 06 nov 1994 08:49:37 gmt", 30.0),
        ("Fri, 06 Nov 1994 08:49:37 GMT", 30.0),  # a wrong day of the week
        ("Sun, 06 Nov 1994 08:49:60 GMT", 52.0),  # a leap second
        ("Sun, 06 Nov 1994 08:49:06 GMT", 0.0),  # past
        ("Monday, 06-Nov-44 08:49:07 GMT", 18263 * 86400.0),  # 50 years ahead
        ("Monday, 06-Nov-45 08:49:07 GMT", 0.0),  # more: the last one
        ("Saturday, 06-Nov-93 08:49:07 GMT", 0.0),
        *(
            (value, None)
            for value in (
                "", "-1", "+5", "1.5", "1e3", "12 s", "soon", "٣", "120, 130",
                "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
                "Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 06 Nov 0000 08:49:37 GMT",
                "Sun, 06 Nov 1994 08:49:37 +0100", "Sun, 06 Nov 1994 08:49:37",
                "Sun, 6 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37Z",
                "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:38 GMT",
            )
        ),
    ],
)  # fmt: skip
def test_a_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_the_zone_of_the_clock_is_minded() -> None:
    elsewhere = NOW.astimezone(datetime.timezone(datetime.timedelta(hours=-5)))
    assert retry_after("Sun, 06 Nov 1994 08:49:37 GMT", elsewhere) == 30.0


@given(st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(2040, 1, 1)), st.text())
def test_every_date_is_read_back_and_no_text_is_a_surprise(
    moment: datetime.datetime, text: str
) -> None:
    moment = moment.replace(microsecond=0, tzinfo=datetime.UTC)
    later = max(0.0, (moment - NOW).total_seconds())
    assert retry_after(format_datetime(moment, usegmt=True), NOW) == later
    assert retry_after(moment.strftime("%a %b %e %H:%M:%S %Y"), NOW) == later
    if moment.year <= NOW.year + 50 and moment.year > NOW.year - 50:
        assert retry_after(moment.strftime("%A, %d-%b-%y %H:%M:%S GMT"), NOW) == later
    assert (found := retry_after(text, NOW)) is None or found >= 0
