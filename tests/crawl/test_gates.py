"""What may be asked for: of each origin its robots.txt first, then its TDM file, then its pages."""

from dataclasses import replace
from typing import Any

import pytest

from crawl import robots
from crawl.config import CrawlConfig
from crawl.gates import Closed, Elsewhere, Gates, Need, Open, Parked
from crawl.origins import UNDEFINED_S, UNREACHABLE_S
from crawl.schema import PageOutcome
from crawl.work import OriginFile, Page

CONFIG = CrawlConfig(user_agent="webtext/1.0 (+https://example.org/bot)")
WORK: Any = object()
A = "http://a.test"
DENY = PageOutcome.ROBOTS_DISALLOWED
UNREACHABLE = PageOutcome.ROBOTS_UNREACHABLE
RESERVED = b'[{"location": "/", "tdm-reservation": 1}]'


def page(target: str) -> Page:
    return Page(WORK, b"\0" * 16, target, target, target)


def rules(text: str = "", status: int | None = 200) -> robots.Rules:
    return robots.verdict(status, text.encode(), "webtext")


def gates(**replaced: object) -> Gates:
    return Gates(CrawlConfig(user_agent=CONFIG.user_agent, **replaced))  # type: ignore[arg-type]


def settled(text: str = "", status: int | None = 200, **replaced: object) -> Gates:
    """Gates that know the robots.txt of A."""
    known = gates(**replaced)
    known.settle(A, rules(text, status), UNREACHABLE, 0.0)
    return known


def test_the_first_page_of_an_origin_needs_its_robots_txt_and_the_others_wait_with_it() -> None:
    known = gates(tdm_file=False)
    first, second, other = page(f"{A}/1"), page(f"{A}/2"), page("http://b.test/1")
    match known.look(first, 0.0):
        case Need(file):
            assert (file.kind, file.origin, file.target) == ("robots", A, f"{A}/robots.txt")
        case found:
            pytest.fail(str(found))
    assert known.look(second, 0.0) == Parked()
    assert isinstance(known.look(other, 0.0), Need)
    _, waited = known.settle(A, rules(), UNREACHABLE, 1.0)
    assert waited == [first, second]
    assert [known.look(one, 1.0) for one in waited] == [Open(), Open()]
    assert known.settle(A, rules(), UNREACHABLE, 2.0)[1] == []


@pytest.mark.parametrize(
    "other", ["https://a.test/1", "http://a.test:8080/1", "http://www.a.test/1", "http://b.test/1"]
)
def test_no_origin_speaks_for_another(other: str) -> None:
    known = settled("User-agent: *\nDisallow: /")
    assert isinstance(known.look(page(other), 1.0), Need)
    assert known.look(page("http://a.test:80/1"), 1.0) == Closed(DENY)


def test_what_robots_txt_forbids_is_closed_and_what_could_not_be_had_says_why() -> None:
    known = settled("User-agent: *\nDisallow: /no", tdm_file=False)
    assert known.look(page(f"{A}/no"), 1.0) == Closed(DENY)
    assert known.look(page(f"{A}/yes"), 1.0) == Open()
    known = settled(status=503)
    assert known.look(page(f"{A}/1"), 1.0) == Closed(UNREACHABLE)
    known.settle(A, rules(status=None), PageOutcome.TLS_ERROR, 1.0)
    assert known.look(page(f"{A}/1"), 1.0) == Closed(PageOutcome.TLS_ERROR)


def test_a_robots_txt_is_asked_for_again_and_so_is_the_tdm_file() -> None:
    known = settled()
    assert isinstance(known.look(page(f"{A}/1"), 1.0), Need)
    known.reserve(A, b"")
    last = robots.CACHE_S - 1
    assert known.look(page(f"{A}/1"), last) == Open()
    found = known.look(page(f"{A}/1"), robots.CACHE_S)
    assert isinstance(found, Need) and found.file.kind == "robots"
    (waiting,) = known.settle(A, rules(), UNREACHABLE, robots.CACHE_S)[1]
    found = known.look(waiting, robots.CACHE_S)
    assert isinstance(found, Need) and found.file.kind == "tdm"


def test_what_was_unreachable_for_thirty_days_is_open() -> None:
    known = gates(tdm_file=False)
    known.remember(A, -UNDEFINED_S + 10)
    known.settle(A, rules(status=500), UNREACHABLE, 0.0)
    assert known.look(page(f"{A}/1"), 1.0) == Closed(UNREACHABLE)
    assert isinstance(known.look(page(f"{A}/1"), UNREACHABLE_S), Need)
    known.settle(A, rules(status=500), UNREACHABLE, UNREACHABLE_S)
    assert known.look(page(f"{A}/1"), UNREACHABLE_S) == Open()
    assert known.unreachable_since(A) == -UNDEFINED_S + 10


SIGNAL = "User-agent: *\nContent-Signal: ai-train=no\nAllow: /"


def test_what_robots_lines_say_of_ai_closes_a_page_unasked() -> None:
    assert settled(SIGNAL).look(page(f"{A}/1"), 1.0) == Closed(
        PageOutcome.OPTED_OUT, ("content-signal: ai-train=no",)
    )


def test_a_recipe_that_obeys_nothing_lets_all_through_and_is_told() -> None:
    known = settled(SIGNAL, obey=())
    assert known.look(page(f"{A}/1"), 1.0) == Open(("content-signal: ai-train=no",))
    assert settled("User-agent: *\nDisallow: /", obey=()).look(page(f"{A}/1"), 1.0) == Closed(DENY)


def test_the_tdm_file_is_asked_for_once_an_origin_and_obeyed() -> None:
    known = settled()
    first, second = page(f"{A}/1"), page(f"{A}/2")
    found = known.look(first, 1.0)
    assert isinstance(found, Need)
    assert (found.file.kind, found.file.target) == ("tdm", f"{A}/.well-known/tdmrep.json")
    assert known.look(found.file, 1.0) == Open()
    assert known.look(second, 1.0) == Parked()
    assert known.reserve(A, b'[{"location": "/1", "tdm-reservation": 1}]') == [first, second]
    assert known.look(first, 1.0) == Closed(PageOutcome.OPTED_OUT, ("tdmrep.json: 1",))
    assert known.look(second, 1.0) == Open()


@pytest.mark.parametrize("asks", [{"tdm_file": False}, {"obey": ("noai",)}])
def test_a_tdm_file_that_is_not_wanted_is_not_asked_for(asks: dict[str, object]) -> None:
    assert settled(**asks).look(page(f"{A}/1"), 1.0) == Open()


def test_a_tdm_file_that_robots_txt_forbids_is_not_asked_for() -> None:
    known = settled("User-agent: *\nDisallow: /.well-known/")
    assert known.look(page(f"{A}/1"), 1.0) == Open()


def test_pages_of_a_robots_txt_that_stands_elsewhere_are_not_of_this_round() -> None:
    known = gates(tdm_file=False)
    first = page(f"{A}/1")
    known.look(first, 0.0)
    assert known.put_off(A) == [first]
    assert known.look(page(f"{A}/2"), 1.0) == Elsewhere()
    known.settle(A, rules(), UNREACHABLE, 2.0)
    assert known.look(first, 2.0) == Open()


def test_who_waited_for_a_file_that_nobody_asks_for_needs_it_anew() -> None:
    known = gates()
    first = page(f"{A}/1")
    found = known.look(first, 0.0)
    assert isinstance(found, Need)
    assert known.drop(found.file) == [first]
    assert isinstance(known.look(first, 0.0), Need)


def test_who_waits_for_a_tdm_file_is_not_handed_out_with_a_robots_txt() -> None:
    known = settled()
    first = page(f"{A}/1")
    assert isinstance(known.look(first, 1.0), Need)
    assert known.settle(A, rules(), UNREACHABLE, 2.0)[1] == []
    assert known.reserve(A, b"") == [first]


def tdm(origin: str, target: str) -> OriginFile:
    """A TDM file that was redirected."""
    return OriginFile(WORK, "tdm", origin, target, hops=1)


def test_a_tdm_file_that_was_redirected_obeys_the_robots_txt_of_its_target() -> None:
    known = settled()
    there = tdm(A, "https://www.a.test/tdm.json")
    found = known.look(there, 1.0)
    assert isinstance(found, Need)
    assert (found.file.kind, found.file.origin) == ("robots", "https://www.a.test")
    forbids = rules("User-agent: *\nDisallow: /tdm.json")
    assert known.settle("https://www.a.test", forbids, UNREACHABLE, 1.0)[1] == [there]
    assert known.look(there, 1.0) == Closed(DENY)
    assert known.look(tdm(A, "https://www.a.test/other.json"), 1.0) == Open()
    known.put_off("https://b.a.test")
    assert known.look(tdm(A, "https://b.a.test/"), 1.0) == Elsewhere()


def test_tdm_files_that_lead_to_each_other_do_not_wait_for_each_other() -> None:
    known, b = settled(), "http://b.a.test"
    known.settle(b, rules(), UNREACHABLE, 0.0)
    assert isinstance(known.look(page(f"{A}/1"), 1.0), Need)
    assert isinstance(known.look(page(f"{b}/1"), 1.0), Need)
    assert known.look(tdm(A, f"{b}/x"), 1.0) == Open()
    assert known.look(tdm(b, f"{A}/x"), 1.0) == Open()


def test_a_robots_txt_is_asked_for_wherever_it_leads() -> None:
    known = settled("User-agent: *\nDisallow: /")
    step = replace(robots.begin(f"{A}/1", "webtext"), target=f"{A}/moved")
    for kind in ("robots", "handed"):
        assert known.look(OriginFile(WORK, kind, A, f"{A}/moved", step, 1), 1.0) == Open()


def test_what_is_known_of_a_million_origins_has_a_bound() -> None:
    known = Gates(CONFIG, max_bytes=50_000)
    for number in range(5_000):
        origin = f"http://h{number}.test"
        status = 200 if number % 2 else None
        known.settle(origin, rules(status=status), UNREACHABLE, 0.0)
        known.reserve(origin, RESERVED)
    kept = [known._refusals, known._origins, known._tdm._found]
    assert all(0 < len(some) <= 300 for some in kept), [len(some) for some in kept]
    last = page("http://h4999.test/1")
    assert known.look(last, 1.0) == Closed(PageOutcome.OPTED_OUT, ("tdmrep.json: 1",))
    assert isinstance(known.look(page("http://h1.test/1"), 1.0), Need)
