"""How a crawl is told: durations, figures before, while and after."""

import json

import pytest

from crawl.bound import Bound
from crawl.status import Status
from pipeline import crawling

NOW = Status(
    pages=12_345, received=10**9, outcomes={"ok": 12_000, "timeout": 345}, pages_per_s=101.25,
    bytes_per_s=5.3e6, left=100_000, in_flight=200, active=230, waiting=9_770, left_s=7200.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (20_000, "5 h 33 min"),
        (86_400 * 3 + 3600 * 4 + 59, "3 d 4 h"),
        (86_400 * 400, "400 d"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, told: str):
    assert crawling.lasting(seconds) == told


def test_what_politeness_takes_is_told_before():
    bound = Bound(
        seconds=20_000.0,
        host="example.com",
        pages=20_000,
        delay_s=1.0,
        total=1_234_567,
        hosts=8_901,
    )
    assert crawling.before(bound) == (
        "crawl: 1,234,567 pages of 8,901 hosts, at least 5 h 33 min by politeness: "
        "example.com, 20,000 pages x 1.0 s"
    )
    assert crawling.before(Bound()) == "crawl: 0 pages of 0 hosts: nobody is asked"


@pytest.mark.parametrize(("delay_s", "told"), [(0.0, "0.0"), (0.02, "0.02"), (1.5, "1.5")])
def test_a_short_delay_is_not_told_as_none(delay_s: float, told: str):
    bound = Bound(seconds=1.0, host="a.org", pages=1, delay_s=delay_s, total=1, hosts=1)
    assert crawling.before(bound).endswith(f"a.org, 1 pages x {told} s")


def test_what_it_took_is_compared_after():
    bound = Bound(seconds=20_000.0, host="example.com")
    told = crawling.after(20_400.0, bound, NOW)
    assert told == (
        "crawl: ok 12,000, timeout 345; took 5 h 40 min, 1.02 times the politeness bound"
    )
    assert crawling.after(5.0, Bound(), NOW) == "crawl: ok 12,000, timeout 345; took 5.0 s"


def test_a_crawl_delay_that_was_met_raises_the_bound_that_it_is_compared_with():
    met = Status(outcomes={"ok": 1}, bound_s=40_000.0, longest="slow.org")
    told = crawling.after(44_000.0, Bound(seconds=20_000.0, host="example.com"), met)
    assert told.endswith("1.10 times the politeness bound of 11 h 6 min (slow.org)")


def test_how_far_it_is_stands_in_one_line():
    assert crawling.line(NOW) == (
        "crawl: 12,345 pages, 100,000 left, 101.2 pages/s, 5.3 MB/s, 2 h to go; "
        "230 hosts active, 9,770 waiting, 200 in flight; ok 12,000, timeout 345"
    )
    assert len(crawling.lines(NOW)) == 3
    assert "no end in sight yet" in crawling.line(Status(left=5))
    assert "no outcome yet" in crawling.line(Status(left=5))


@pytest.mark.parametrize(("state", "told"), [("pause", "paused"), ("stop", "stopping")])
def test_who_holds_it_up_is_told_instead_of_when_it_ends(state: str, told: str):
    assert f", {told};" in crawling.line(Status(left=5, pages_per_s=1.0, state=state))


def test_a_program_reads_the_same():
    told = crawling.plain(NOW)
    assert told and json.loads(json.dumps(told)) == told
    assert (told["eta_s"], told["hosts_active"], told["outcomes"]["ok"]) == (7200.0, 230, 12_000)
    assert crawling.plain(None) is None
