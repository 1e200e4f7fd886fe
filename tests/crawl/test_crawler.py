"""The crawl against a loopback web: polite, and ready for every kind of server."""

import asyncio
import contextlib
import errno
import gzip
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crawl import names, network, observations, outcomes, url
from tests import web

from .conftest import Settings, crawl


def answer_names(monkeypatch: pytest.MonkeyPatch, look_up: Callable[[str], list[str]]) -> None:
    """Puts a name server in the place of the machine's; it may take its time."""

    async def addresses(asked: Any, host: str, family: Any) -> list[str]:
        return await asyncio.to_thread(look_up, host)

    monkeypatch.setattr(names, "addresses", addresses)


PAGE = "<html><body><p>Some text.</p></body></html>"


@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        (web.gzipped(PAGE), "ok", 200),
        (web.chunked(PAGE), "ok", 200),
        (web.response(200, PAGE.encode(), {"Content-Type": "text/plain"}), "ok", 200),
        (web.response(200, b"just words", {"Content-Type": "text/plain"}), "not_html", 200),
        (web.response(200, b"%PDF-1.5", {"Content-Type": "application/pdf"}), "not_html", 200),
        (web.response(200, b"%PDF-1.5"), "not_html", 200),
        (web.response(200, b"<html>" + b"x" * 5000), "too_large", 200),
        (web.response(200, b"<html>" + b"x" * 4090), "ok", 200),
        (web.response(200, b"<html>" + b"x" * 4091, length=False), "too_large", 200),
        (web.response(404, b"no"), "http_error", 404),
        (web.response(410), "http_error", 410),
        (b"HTTP/1.1 404 X\r\nContent-Length: 100\r\n\r\nshort", "http_error", 404),
        (web.response(500, b"oh"), "http_error", 500),
        (web.response(304), "http_error", 304),
        (b"HTTP/1.1 404 Non trouv\xe9\r\nContent-Length: 0\r\n\r\n", "http_error", 404),
        (b"HTTP/1.1 404 \xe6\x97\xa5\r\nContent-Length: 0\r\n\r\n", "http_error", 404),
        (web.redirect("mailto:x@web.test"), "protocol_error", 302),
        (web.redirect("http://evil.other.test/"), "redirected_offsite", 302),
        (web.redirect("http://127.0.0.1/"), "redirected_offsite", 302),
        (web.redirect("/x"), "redirect_loop", 302),
        (b"hello, this is no HTTP\r\n\r\n", "protocol_error", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "protocol_error", None),
        (web.slam, "protocol_error", None),
        (web.endless, "too_large", 200),
        (web.hang, "timeout", None),
    ],
)
def test_every_kind_of_answer_is_an_outcome(
    site: web.Site,
    settings: Settings,
    tmp_path: Path,
    answer: bytes | web.Handler,
    outcome: str,
    status: int | None,
) -> None:
    site.route("a.web.test", "/x", answer)
    patience = {"timeout_s": 0.5} if answer is web.hang else {}
    config = settings(max_bytes=4096, retries=0, **patience)
    row = crawl(config, tmp_path, "http://a.web.test/x")["http://a.web.test/x"]
    assert (row["outcome"], row["status"]) == (outcome, status)
    if status:
        assert row["warc_file"]


def test_hosts_that_cannot_be_reached(site: web.Site, settings: Settings, tmp_path: Path) -> None:
    resolve = site.resolve | {"dead.web.test": "127.0.0.1:1"}
    found = crawl(
        settings(resolve=resolve, retries=0),
        tmp_path,
        "http://dead.web.test/",
        "https://plain.web.test/",
        "http://localhost.localdomain:1/",
    )
    assert {row["url"]: row["outcome"] for row in found.values()} == {
        "http://dead.web.test/": "unreachable",
        "https://plain.web.test/": "tls_error",
        "http://localhost.localdomain:1/": "private_address",
    }


def test_redirects_are_followed_within_the_domain_and_each_hop_obeys_robots(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.route("a.web.test", "/1", web.redirect("http://b.a.web.test/2?q=a b", 301))
    site.route("b.a.web.test", "/2?q=a%20b", web.redirect("/3#x"))
    site.page("b.a.web.test", "/3", PAGE)
    site.route("a.web.test", "/into", web.redirect("http://c.a.web.test/no"))
    site.robots("c.a.web.test", "User-agent: *\nDisallow: /no")
    site.page("c.a.web.test", "/no", PAGE)
    found = crawl(settings(), tmp_path, "http://a.web.test/1", "http://a.web.test/into")
    assert found["http://a.web.test/1"]["outcome"] == "ok"
    assert found["http://a.web.test/1"]["final_url"] == "http://b.a.web.test/3"
    assert found["http://a.web.test/into"]["outcome"] == "robots_disallowed"
    assert found["http://a.web.test/into"]["final_url"] == "http://c.a.web.test/no"
    assert site.paths("c.a.web.test") == ["/robots.txt"]


def test_a_redirect_is_followed_to_the_very_octets_that_it_names(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    locations = {"latin": b"/caf\xe9", "utf": "/caf\u00e9".encode(), "and": b"/?a&lt;b"}
    for name, location in locations.items():
        head = b"HTTP/1.1 301 X\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % location
        site.route("a.web.test", f"/{name}", head)
    found = crawl(settings(), tmp_path, *(f"http://a.web.test/{name}" for name in locations))
    led = {row["final_url"].removeprefix("http://a.web.test") for row in found.values()}
    assert led == {"/caf%E9", "/caf%C3%A9", "/?a&lt;b"} == led & set(site.paths("a.web.test"))


def test_a_redirect_that_leaves_is_told_and_not_followed(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.route("a.web.test", "/", web.redirect("http://x.other.test/y"))
    row = crawl(settings(), tmp_path, "http://a.web.test/")["http://a.web.test/"]
    assert (row["outcome"], row["final_url"]) == ("redirected_offsite", "http://x.other.test/y")
    assert site.paths("x.other.test") == []


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (web.response(200, b"User-agent: *\nDisallow: /"), "robots_disallowed"),
        (web.response(200, b"User-agent: webtext\nDisallow: /x"), "robots_disallowed"),
        (web.response(200, b"User-agent: other\nDisallow: /"), "ok"),
        (web.response(404, b"User-agent: *\nDisallow: /"), "ok"),
        (web.response(403), "ok"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 100\r\n\r\nshort", "ok"),
        (web.response(500, b"User-agent: *\nAllow: /"), "robots_unreachable"),
        (web.response(429), "robots_unreachable"),
        (web.hang, "robots_unreachable"),
        (b"garbage\r\n\r\n", "robots_unreachable"),
        (web.redirect("/moved.txt"), "robots_disallowed"),
        (web.redirect("/robots.txt"), "ok"),
        (web.redirect("http://x.other.test/robots.txt"), "robots_unreachable"),
        (web.gzipped("User-agent: *\nDisallow: /"), "robots_disallowed"),
    ],
)
def test_robots_are_asked_first_and_obeyed(
    site: web.Site, settings: Settings, tmp_path: Path, answer: bytes | web.Handler, outcome: str
) -> None:
    site.route("a.web.test", "/robots.txt", answer)
    site.route("a.web.test", "/moved.txt", web.response(200, b"User-agent: *\nDisallow: /x"))
    site.page("a.web.test", "/x", PAGE)
    patience = {"timeout_s": 0.5} if answer is web.hang else {}
    row = crawl(settings(retries=0, **patience), tmp_path, "http://a.web.test/x")
    assert row["http://a.web.test/x"]["outcome"] == outcome
    assert site.paths("a.web.test")[0] == "/robots.txt"
    assert ("/x" in site.paths("a.web.test")) is (outcome == "ok")


@pytest.mark.parametrize(
    ("rule", "link"),
    [
        ("/$", "http://a.web.test/?"),
        ("/$", "http://a.web.test?#x"),
        ("/*.pdf$", "http://a.web.test/f.pdf?"),
    ],
)
def test_what_robots_judge_is_what_is_asked(
    site: web.Site, settings: Settings, tmp_path: Path, rule: str, link: str
) -> None:
    """A question mark with nothing behind it never goes over the wire."""
    site.robots("a.web.test", f"User-agent: *\nDisallow: {rule}")
    site.route("a.web.test", "/from", web.redirect(link))
    found = crawl(settings(), tmp_path, link, "http://a.web.test/from")
    assert [row["outcome"] for row in found.values()] == ["robots_disallowed"] * 2
    assert found[link]["final_url"] == link.partition("?")[0]
    assert site.paths("a.web.test") == ["/robots.txt", "/from"]


def test_a_host_that_is_not_there_costs_few_attempts(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    resolve = site.resolve | {"dead.web.test": "127.0.0.1:1"}
    addresses = [f"http://dead.web.test/{n}" for n in range(30)]
    found = crawl(settings(resolve=resolve, max_failures=1), tmp_path, *addresses)
    assert {row["outcome"] for row in found.values()} == {"unreachable"}
    assert len(found) == 30


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("coding", ["gzip", None])
def test_a_robots_file_longer_than_a_page_may_be_is_obeyed(
    site: web.Site, settings: Settings, tmp_path: Path, length: bool, coding: str | None
) -> None:
    comment = random.Random(1).randbytes(20_000).hex().encode()
    text = b"User-agent: *\nDisallow: /secret\n" + b"\n".join([b"#" + comment] * 20)
    text += b"\n#" * 3_000_000
    fields = {"Content-Encoding": coding} if coding else {}
    body = gzip.compress(text, 1) if coding else text
    answer = web.response(200, body, fields, length=length)
    site.route("a.web.test", "/robots.txt", answer)
    site.page("a.web.test", "/open", PAGE)
    addresses = ("http://a.web.test/secret", "http://a.web.test/open")
    found = crawl(settings(max_bytes=4096), tmp_path, *addresses)
    assert [found[address]["outcome"] for address in addresses] == ["robots_disallowed", "ok"]


def test_a_redirect_with_a_password_is_refused(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.route("a.web.test", "/", web.redirect("http://user:secret@a.web.test/y"))
    site.page("a.web.test", "/y", PAGE)
    row = crawl(settings(), tmp_path, "http://a.web.test/")["http://a.web.test/"]
    assert (row["outcome"], row["final_url"]) == ("protocol_error", "http://a.web.test/")
    assert site.paths("a.web.test") == ["/robots.txt", "/"]


def test_dead_names_cost_the_living_nothing(
    site: web.Site, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = threading.Semaphore(0)
    asked: Counter[str] = Counter()

    def lookup(host: str) -> list[str]:
        asked[host] += 1
        turns.acquire(timeout=20)  # no name server answers before all names have been asked for
        turns.release()
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    answer_names(monkeypatch, lookup)
    dead = [f"http://h{n}.example/" for n in range(12)]
    living = [f"http://h{n}.web.test/" for n in range(12)]
    for address in living:
        site.page(url.host(address), "/", PAGE)

    async def open_up(writer: Any) -> None:
        turns.release()
        writer.write(web.response(200, PAGE.encode()))
        await writer.drain()

    site.route("last.web.test", "/", open_up)
    found = crawl(settings(retries=0), tmp_path, "http://last.web.test/", *dead, *living)
    assert {found[address]["outcome"] for address in dead} == {"unreachable"}
    assert {found[address]["outcome"] for address in living} == {"ok"}
    assert set(asked.values()) == {1}


def test_the_answer_of_a_name_server_is_used_again(
    site: web.Site, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    answer_names(monkeypatch, lookup)
    monkeypatch.setattr(network, "is_public", lambda address: True)
    monkeypatch.setattr(names, "is_public", lambda address: True)
    addresses = [f"http://named.example:{site.port}/{n}" for n in range(4)]
    for n in range(4):
        site.page("named.example", f"/{n}", PAGE)
    found = crawl(settings(), tmp_path, *addresses)
    assert {row["outcome"] for row in found.values()} == {"ok"}
    assert asked == ["named.example"]


def test_a_host_that_lets_nobody_in_is_not_blamed_on_its_robots(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    with socket.socket() as deaf, contextlib.ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # the queue of those who would come in is full
            guest = waiting.enter_context(socket.socket())
            guest.setblocking(False)
            guest.connect_ex(deaf.getsockname())
        resolve = {"deaf.web.test": f"127.0.0.1:{deaf.getsockname()[1]}"}
        config = settings(resolve=resolve, connect_timeout_s=0.2, retries=0)
        row = crawl(config, tmp_path, "http://deaf.web.test/")["http://deaf.web.test/"]
    assert row["outcome"] == "timeout"


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
    ],
)
def test_a_machine_without_a_way_out_says_nothing_of_a_host(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: OSError,
    offline: bool,
) -> None:
    def lookup(host: str) -> list[str]:
        raise fault

    answer_names(monkeypatch, lookup)
    monkeypatch.setattr(network, "is_offline", lambda: offline)
    address = "http://somewhere.example/"
    if offline:
        with pytest.raises(OSError, match=str(fault.strerror)):
            crawl(settings(retries=0), tmp_path, address)
    else:
        row = crawl(settings(retries=0), tmp_path, address)[address]
        assert row["outcome"] == "unreachable"
    assert len(observations.read(tmp_path)) == (0 if offline else 1)


def test_a_full_disk_is_told_as_what_it_is(
    site: web.Site, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(observations.Writer, "append", full)
    with pytest.raises(OSError, match="No space") as raised:
        crawl(settings(), tmp_path, *(f"http://a.web.test/{n}" for n in range(3)))
    assert raised.value.errno == errno.ENOSPC
    assert any("http://a.web.test/" in note for note in raised.value.__notes__)


def test_a_fault_of_ours_names_the_url_that_met_it(
    site: web.Site, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*_: object, **__: object) -> None:
        raise UnicodeEncodeError("ascii", "x", 0, 1, "odd")

    site.page("a.web.test", "/odd", PAGE)
    monkeypatch.setattr(outcomes.content, "outcome", odd)
    with pytest.raises(RuntimeError, match=r"http://a\.web\.test/odd failed: UnicodeEncodeError"):
        crawl(settings(), tmp_path, "http://a.web.test/odd")


def test_as_many_redirects_are_followed_as_the_recipe_says(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    for n in range(3):
        site.route("a.web.test", f"/{n}", web.redirect(f"/{n + 1}"))
    site.page("a.web.test", "/3", PAGE)
    row = crawl(settings(max_redirects=2), tmp_path / "two", "http://a.web.test/0")
    assert row["http://a.web.test/0"]["outcome"] == "redirect_loop"
    assert site.paths("a.web.test") == ["/robots.txt", "/0", "/1", "/2"]
    row = crawl(settings(max_redirects=3), tmp_path / "three", "http://a.web.test/0")
    assert row["http://a.web.test/0"]["outcome"] == "ok"


def test_no_cookie_is_kept_and_no_proxy_of_the_environment_is_used(
    site: web.Site, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    addresses = [f"http://a.web.test/{n}" for n in range(2)]
    for n in range(2):
        cookie = {"Set-Cookie": "visitor=1; Path=/"}
        site.route("a.web.test", f"/{n}", web.response(200, PAGE.encode(), cookie))
    found = crawl(settings(), tmp_path, *addresses)
    assert {row["outcome"] for row in found.values()} == {"ok"}
    assert len(site.log) == 3
    assert not [hit for hit in site.log if "cookie" in hit.headers]
