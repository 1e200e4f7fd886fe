"""How far apart requests to a host are: its delay, what it asks for, what it was told to earlier
crawls. The server's own log is the judge, and it is asked for lower bounds alone."""

import asyncio
import datetime
import itertools
import socket
import time
from collections import Counter
from collections.abc import Callable
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from crawl import names, network, observations, origins, pages
from crawl.notes import Note, Notes
from tests import web

from .conftest import Settings, crawl

PAGE = "<html><body><p>Some text.</p></body></html>"
NOW = Callable[[], datetime.datetime]


def pauses(site: web.Site, host: str) -> list[float]:
    """Seconds from the end of each answer of a host to the next request."""
    hits = [hit for hit in site.log if hit.host == host]
    return [after.at - (before.ended or after.at) for before, after in itertools.pairwise(hits)]


def in_turn(*answers: bytes | Callable[[], bytes]) -> web.Handler:
    """A page that answers so, one request after the other."""
    left = iter(answers)

    async def answer(writer: Any) -> None:
        said = next(left)
        writer.write(said if isinstance(said, bytes) else said())
        await writer.drain()

    return answer


GOOD = web.response(200, PAGE.encode())


def test_no_two_requests_to_a_host_come_closer_than_its_delay(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.robots("slow.web.test", "User-agent: *\nCrawl-delay: 0.12")
    addresses = [f"http://{host}.web.test/{n}" for host in ("slow", "fast") for n in range(4)]
    site.route("fast.web.test", "/1", web.redirect("/0"))
    found = crawl(settings(min_delay_s=0.06), tmp_path, *addresses)
    assert len(found) == 8
    for host, delay_s, requests in (("slow", 0.12, 5), ("fast", 0.06, 6)):
        at = [hit.at for hit in site.log if hit.host == f"{host}.web.test"]
        assert len(at) == requests
        # the server has had a request before it is answered, and a delay begins with the answer
        assert all(later - earlier >= delay_s for earlier, later in itertools.pairwise(at))


def test_a_slow_name_does_not_bring_two_requests_together(
    site: web.Site, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = names.Names.resolve
    seen: set[str] = set()

    async def slow_at_first(self: Any, host: str, *rest: Any, **keys: Any) -> Any:
        if host not in seen:
            seen.add(host)
            await asyncio.sleep(0.3)
        return await resolve(self, host, *rest, **keys)

    monkeypatch.setattr(names.Names, "resolve", slow_at_first)
    crawl(settings(min_delay_s=0.2), tmp_path, *(f"http://a.web.test/{n}" for n in range(2)))
    at = [hit.at for hit in site.log]
    assert len(at) == 3 and all(b - a >= 0.2 for a, b in itertools.pairwise(at))


def test_a_slow_host_is_left_alone_for_a_multiple_of_its_latency(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    for n in range(3):
        site.route("a.web.test", f"/{n}", web.Ready(GOOD, after_s=0.1))
    addresses = [f"http://a.web.test/{n}" for n in range(3)]
    crawl(settings(latency_factor=3.0), tmp_path, *addresses)
    assert len(pauses(site, "a.web.test")) == 3
    assert all(pause >= 0.3 for pause in pauses(site, "a.web.test")[1:])


def test_what_a_name_takes_and_what_nobody_answers_is_no_latency(
    site: web.Site, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, opened, seen = [0.0], network._socket, set[str]()

    async def known(self: Any, host: str, port: int) -> None:
        gone[0] += 0.0 if host in seen else 1000.0
        seen.add(host)
        if host == "dead.web.test":
            raise socket.gaierror(socket.EAI_AGAIN, "no word of it")

    def connect(*how: Any) -> socket.socket:
        gone[0] += 1000.0 if how[-1][-1][1] == 1 else 0.0
        return opened(*how)

    monkeypatch.setattr(names.Names, "known", known)
    monkeypatch.setattr(network, "_socket", connect)
    monkeypatch.setattr(network, "is_offline", lambda: False)
    site.page("a.web.test", "/", PAGE)
    resolve = site.resolve | {"shut.web.test": "127.0.0.1:1"}
    config = settings(latency_factor=1.0, max_delay_s=1.0, connections=1, resolve=resolve)
    hosts = ("a.web.test", "dead.web.test", "shut.web.test")
    links = [web.links_to(*(f"http://{host}/" for host in hosts))]
    list(pages.ask(links, str(tmp_path), config, clock=lambda: time.monotonic() + gone[0]))
    with Notes(tmp_path, observations.LOWEST, observations.HIGHEST, label="live") as notes:
        assert [notes.full_delay_s(host) for host in hosts] == [0.0] * 3


def test_no_latency_and_no_crawl_delay_stretches_a_delay_beyond_its_bound(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.robots("a.web.test", "User-agent: *\nCrawl-delay: 86400")
    for n in range(3):
        site.route("a.web.test", f"/{n}", web.Ready(GOOD, after_s=0.05))
    config = settings(latency_factor=1e6, max_delay_s=0.05)
    found = crawl(config, tmp_path, *(f"http://a.web.test/{n}" for n in range(3)))
    assert {row["outcome"] for row in found.values()} == {"ok"}


def date(seconds: float) -> Callable[[], bytes]:
    """An answer that names a date so many seconds from then."""

    def made() -> bytes:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        return web.response(503, b"", {"Retry-After": format_datetime(moment, usegmt=True)})

    return made


@pytest.mark.parametrize("path", ["/robots.txt", "/1"])
@pytest.mark.parametrize(
    "busy",
    [
        web.response(429, b"", {"Retry-After": "1"}),
        web.response(503, b"", {"Retry-After": "1"}),
        date(2.0),  # of which the fraction of a second is lost
    ],
    ids=["429", "503", "date"],
)
def test_a_host_that_has_had_enough_is_left_alone_as_long_as_it_says(
    site: web.Site, settings: Settings, tmp_path: Path, busy: Any, path: str
) -> None:
    good = web.response(404) if path == "/robots.txt" else GOOD
    site.route("a.web.test", path, in_turn(busy, good))
    site.route("a.web.test", "/2", GOOD)
    if path == "/robots.txt":
        site.route("a.web.test", "/1", GOOD)
    found = crawl(settings(), tmp_path, "http://a.web.test/1", "http://a.web.test/2")
    assert {row["outcome"] for row in found.values()} == {"ok"}
    asked = [hit.path for hit in site.log]
    assert pauses(site, "a.web.test")[asked.index(path)] >= 0.99


def test_a_retry_after_of_a_week_is_not_waited_for(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    busy = web.response(503, b"", {"Retry-After": "604800"})
    site.route("a.web.test", "/1", in_turn(busy, GOOD))
    row = crawl(settings(max_retry_after_s=0.05), tmp_path, "http://a.web.test/1")
    assert row["http://a.web.test/1"]["outcome"] == "ok"


@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_retry_after_of_others_is_no_wish(
    site: web.Site, settings: Settings, tmp_path: Path, status: int
) -> None:
    odd = web.response(status, b"<html>", {"Retry-After": "604800"})
    site.route("a.web.test", "/1", odd)
    site.route("a.web.test", "/2", odd)
    found = crawl(settings(retries=0), tmp_path, "http://a.web.test/1", "http://a.web.test/2")
    assert {row["status"] for row in found.values()} == {status}


def test_what_may_pass_is_asked_again_and_what_will_not_is_not(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.route("a.web.test", "/recovers", in_turn(web.response(503), GOOD))
    site.route("a.web.test", "/broken", web.response(500))
    found = crawl(
        settings(retries=2),
        tmp_path,
        *(f"http://a.web.test/{name}" for name in ("recovers", "broken", "gone")),
    )
    assert {row["outcome"] for row in found.values()} == {"ok", "http_error"}
    assert Counter(site.paths("a.web.test")) == {
        "/robots.txt": 1, "/recovers": 2, "/broken": 3, "/gone": 1
    }  # fmt: skip


def test_a_host_that_only_fails_is_given_up(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    addresses = [f"http://a.web.test/{n}" for n in range(40)]
    for n in range(40):
        site.route("a.web.test", f"/{n}", web.response(503))
    site.page("b.a.web.test", "/", PAGE)
    site.route("c.a.web.test", "/", web.redirect("http://a.web.test/0"))
    others = ["http://b.a.web.test/", "http://c.a.web.test/"]
    found = crawl(settings(retries=2, max_failures=7), tmp_path, *addresses, *others)
    assert len(site.paths("a.web.test")) <= 1 + 7
    assert {found[address]["outcome"] for address in addresses} == {"http_error"}
    assert found[others[0]]["outcome"] == "ok"
    assert found[others[1]]["outcome"] == "http_error"


def test_pages_whose_robots_txt_leads_to_a_lost_host_end_as_it_did(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    """And so does a TDM file, without which nothing is reserved."""
    for n in range(3):
        site.route("lost.web.test", f"/{n}", web.slam)
    late = {"b.web.test": "/robots.txt", "c.web.test": "/.well-known/tdmrep.json"}

    def when_lost(target: str) -> web.Handler:
        async def answer(writer: Any) -> None:
            while len(site.paths("lost.web.test")) < 2 + 4:
                await asyncio.sleep(0.005)
            writer.write(web.redirect(f"http://lost.web.test{target}"))
            await writer.drain()

        return answer

    for host, path in late.items():
        site.route(host, path, when_lost(path))
        site.page(host, "/", PAGE)
    lost = [f"http://lost.web.test/{n}" for n in range(3)]
    config = settings(retries=1, max_failures=4, tdm_file=True)
    found = crawl(config, tmp_path, *lost, *(f"http://{host}/" for host in late))
    assert {found[one]["outcome"] for one in lost} == {"protocol_error"}
    assert found["http://b.web.test/"]["outcome"] == "protocol_error"
    assert found["http://c.web.test/"]["outcome"] == "ok"


def test_a_host_that_had_its_time_is_asked_no_more(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    gone = [0.0]

    async def an_hour(writer: Any) -> None:
        gone[0] += 3600.0
        writer.write(GOOD)
        await writer.drain()

    for n in range(9):
        site.route("a.web.test", f"/{n}", an_hour)
    links = [web.links_to(*(f"http://a.web.test/{n}" for n in range(9)), "http://b.web.test/")]
    config = settings(max_host_s=3.5 * 3600.0)
    list(pages.ask(links, str(tmp_path), config, clock=lambda: time.monotonic() + gone[0]))
    (found,) = pages.fetch(links, str(tmp_path), config)
    assert Counter(found.column("outcome").to_pylist()) == {
        "ok": 4, "over_host_budget": 5, "http_error": 1
    }  # fmt: skip
    assert len(site.paths("a.web.test")) == 1 + 4


def test_the_budget_of_a_host_holds_over_several_crawls(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    addresses = [f"http://a.web.test/{n}" for n in range(12)]
    for n in range(12):
        site.page("a.web.test", f"/{n}", PAGE)
    config = settings(max_pages_per_host=5)
    for count in (2, 4, 8, 12):
        crawl(config, tmp_path, *addresses[:count])
        asked = [path for path in site.paths("a.web.test") if path != "/robots.txt"]
        assert len(asked) == len(set(asked)) == min(count, 5)
    once = crawl(config, tmp_path / "once", *addresses)
    assert Counter(row["outcome"] for row in once.values()) == {"ok": 5, "over_host_budget": 7}


# After a restart


def first(site: web.Site, host: str, since: float) -> float:
    """Seconds from then to the first request to a host."""
    return next(hit.at for hit in site.log if hit.host == host and hit.at >= since) - since


def test_after_a_restart_every_host_first_waits_a_full_delay(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.robots("slow.web.test", "User-agent: *\nCrawl-delay: 0.5")
    config = settings(min_delay_s=0.2)
    crawl(config, tmp_path, "http://a.web.test/1", "http://slow.web.test/1")
    since = time.monotonic()
    crawl(config, tmp_path, *(f"http://{host}.web.test/2" for host in ("a", "slow", "new")))
    assert first(site, "a.web.test", since) >= 0.2
    assert first(site, "slow.web.test", since) >= 0.5
    assert first(site, "new.web.test", since) >= 0.2  # it may have been asked, and not noted


def test_after_a_restart_a_retry_after_still_holds(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.route("a.web.test", "/1", web.response(503, b"", {"Retry-After": "2"}))
    crawl(settings(retries=0), tmp_path, "http://a.web.test/1")
    busy = site.log[-1].at
    crawl(settings(retries=0), tmp_path, "http://a.web.test/2")
    assert site.log[2].at - busy >= 1.99


def test_a_retry_after_is_kept_for_a_restart_with_all_its_milliseconds(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    """A date has none of what is less: the moment was up to one later than it says."""
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, datetime.UTC)
    site.route("a.web.test", "/1", web.response(503, b"", {"Retry-After": "2"}))
    links = [web.links_to("http://a.web.test/1")]
    list(pages.ask(links, str(tmp_path), settings(retries=0), now=lambda: moment))
    with Notes(tmp_path, observations.LOWEST, observations.HIGHEST, label="live") as notes:
        until = notes.until("a.web.test")
    assert until and until - moment == datetime.timedelta(seconds=2, milliseconds=1)


def test_a_moment_that_a_clock_far_ahead_has_kept_holds_a_host_no_longer_than_a_retry_after(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.page("a.web.test", "/1", PAGE)
    ahead = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=40)
    with Notes(tmp_path, observations.LOWEST, observations.HIGHEST, label="live") as notes:
        notes.tell(Note(host="a.web.test", until=ahead))
    since = time.monotonic()
    found = crawl(settings(max_retry_after_s=0.5), tmp_path, "http://a.web.test/1")
    assert found["http://a.web.test/1"]["outcome"] == "ok"
    assert 0.5 <= first(site, "a.web.test", since) < 20


def test_after_a_restart_a_host_that_was_slow_is_left_alone_as_long_as_before(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.route("a.web.test", "/1", web.Ready(GOOD, after_s=0.2))
    config = settings(latency_factor=3.0)
    crawl(config, tmp_path, "http://a.web.test/1")
    since = time.monotonic()
    crawl(config, tmp_path, "http://a.web.test/2")
    assert first(site, "a.web.test", since) >= 0.6


def test_after_a_restart_a_host_that_a_redirect_leads_to_waits_too(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.robots("www.web.test", "User-agent: *\nCrawl-delay: 0.7")
    site.route("a.web.test", "/2", web.redirect("http://www.web.test/2"))
    crawl(settings(), tmp_path, "http://www.web.test/1")
    since = time.monotonic()
    crawl(settings(), tmp_path, "http://a.web.test/2")
    assert first(site, "www.web.test", since) >= 0.7


def test_a_robots_txt_that_is_unreachable_for_thirty_days_allows_in_a_later_crawl(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.robots("a.web.test", "", 503)
    for n in range(4):
        site.page("a.web.test", f"/{n}", PAGE)
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    def asked(n: int, days: int) -> str:
        links = [web.links_to(f"http://a.web.test/{n}")]
        now = lambda: moment + datetime.timedelta(days=days)  # noqa: E731
        list(pages.ask(links, str(tmp_path), settings(retries=0), now=now))
        (found,) = pages.fetch(links, str(tmp_path), settings())
        return str(found.column("outcome")[0])

    assert asked(0, 0) == "robots_unreachable"
    assert asked(1, 29) == "robots_unreachable"
    assert asked(2, 31) == "ok"
    site.robots("a.web.test", "")
    assert asked(3, 32) == "ok"
    site.robots("a.web.test", "", 503)  # from here on it counts anew
    assert asked(4, 33) == "robots_unreachable"


def test_a_robots_txt_is_asked_for_again_after_a_day(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    gone = [0.0]

    async def a_day_later(writer: Any) -> None:
        gone[0] += origins.CACHE_S
        writer.write(GOOD)
        await writer.drain()

    for path in ("/1", "/2"):
        site.route("a.web.test", path, a_day_later)
    links = [web.links_to("http://a.web.test/1", "http://a.web.test/2")]
    clock = lambda: time.monotonic() + gone[0]  # noqa: E731
    list(pages.ask(links, str(tmp_path), settings(), clock=clock))
    (found,) = pages.fetch(links, str(tmp_path), settings())
    assert found.column("outcome").to_pylist() == ["ok", "ok"]
    assert site.paths("a.web.test")[::2] == ["/robots.txt", "/robots.txt"]
