"""One request: whom it goes to, how long it may take, what is read of it, how it can end."""

import asyncio
import datetime
import gzip
import ipaddress
import resource
import socket
import ssl
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard

from crawl import content, network, warc
from crawl.config import CrawlConfig
from crawl.network import Failure
from crawl.schema import PageOutcome
from crawl.warc import Exchange
from tests import web, web_faults, web_server, web_tls

from . import proxy
from .conftest import Settings, crawl

PAGE = "<html><body><p>Some text.</p></body></html>"
MOMENT = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
LOCAL = "127.0.0.1"


def ask(config: CrawlConfig, *targets: str, **how: Any) -> list[Exchange | PageOutcome]:
    """The answers to all of these at once, or how asking ended."""

    async def one(session: network.Web, target: str) -> Exchange | PageOutcome:
        try:
            return await network.ask(session, target, MOMENT, **({"most": config.max_bytes} | how))
        except Failure as failure:
            return failure.outcome

    async def everything() -> list[Exchange | PageOutcome]:
        async with network.session(config) as session:
            return await asyncio.gather(*(one(session, target) for target in targets))

    return asyncio.run(everything())


def got(config: CrawlConfig, target: str = "http://a.web.test/", **how: Any) -> Exchange:
    (answer,) = ask(config, target, **how)
    assert isinstance(answer, Exchange), answer
    return answer


# Thousands of sockets


class Together:
    """A server that answers nobody before all have come."""

    def __init__(self, count: int) -> None:
        self.count, self.here, self.all_here = count, 0, asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.here += 1
        if self.here == self.count:
            self.all_here.set()
        await asyncio.wait_for(self.all_here.wait(), 120)
        writer.write(web.response(200, b"<html>"))
        await writer.drain()
        writer.close()


def test_thousands_of_requests_are_in_flight_at_once(settings: Settings) -> None:
    count = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 256  # both ends are ours
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"this user may open {hard} files, and {wanted} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    async def crowd() -> list[int]:
        together = Together(count)
        server = await asyncio.start_server(together.serve, LOCAL, 0, backlog=4096)
        place = f"{LOCAL}:{web.port_of(server)}"
        config = settings(
            resolve={"*.web.test": place}, timeout_s=120.0, connect_timeout_s=120.0,
            read_timeout_s=120.0, connections=count,
        )  # fmt: skip
        async with network.session(config) as session:
            asked = [
                network.ask(session, f"http://h{n}.web.test/", MOMENT, most=100)
                for n in range(count)
            ]
            found = await asyncio.gather(*asked)
        server.close()
        return [exchange.answer.status for exchange in found]

    assert asyncio.run(crowd()) == [200] * count
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Time


@pytest.mark.parametrize(
    ("answer", "patience"),
    [
        (web_faults.hang, {"timeout_s": 0.3}),
        (web_faults.hang, {"read_timeout_s": 0.3}),
        (web_faults.half_a_head, {"read_timeout_s": 0.3}),
        (web_faults.half_a_body, {"read_timeout_s": 0.3}),
        # each piece comes in time, all of them never
        (web_faults.drip_head, {"timeout_s": 0.5}),
        (web_faults.drip_body, {"timeout_s": 0.5}),
        (web_faults.flood_of_hints, {"timeout_s": 0.5}),
    ],
)
def test_no_server_is_waited_for_for_ever(
    site: web.Site, settings: Settings, answer: web.Handler, patience: dict[str, float]
) -> None:
    site.route("a.web.test", "/", answer)
    assert ask(settings(**({"timeout_s": 60.0} | patience)), "http://a.web.test/") == ["timeout"]


def test_an_answer_that_drips_is_given_up_before_its_time_is_over(
    site: web.Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "GRACE_S", 0.2)
    site.route("a.web.test", "/", web_faults.drip_body)
    patient = settings(timeout_s=3600.0, read_timeout_s=3600.0, min_bytes_per_s=1000)
    assert ask(patient, "http://a.web.test/") == ["timeout"]


def test_an_answer_of_a_slow_server_that_is_quick_enough_is_read_to_its_end(
    site: web.Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "GRACE_S", 0.05)
    pieces = [web.response(200, b"", length=False), *[b"x" * 1000] * 8]
    site.route("a.web.test", "/", web_faults.dripping(pieces))
    answer = got(settings(min_bytes_per_s=100))
    assert len(answer.answer.body) == 8000


def test_no_connection_is_waited_for_for_longer_than_it_may_take(settings: Settings) -> None:
    with socket.socket() as deaf:
        deaf.bind((LOCAL, 0))
        deaf.listen(0)
        guests = []
        for _ in range(4):  # the queue of those who would come in is full
            guest = socket.socket()
            guest.setblocking(False)
            guest.connect_ex(deaf.getsockname())
            guests.append(guest)
        resolve = {"*.web.test": f"{LOCAL}:{deaf.getsockname()[1]}"}
        config = settings(resolve=resolve, connect_timeout_s=0.2, timeout_s=60.0)
        assert ask(config, "http://a.web.test/", "https://a.web.test/") == ["timeout"] * 2
        for guest in guests:
            guest.close()


# What is read


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize(
    ("size", "cut"), [(4095, False), (4096, False), (4097, True), (9000, True)]
)
def test_a_body_is_read_up_to_its_bound_and_says_where_it_was_cut(
    site: web.Site, settings: Settings, size: int, cut: bool, length: bool
) -> None:
    site.route("a.web.test", "/", web.response(200, b"x" * size, length=length))
    answer = got(settings(), most=4096)
    assert (answer.truncated, len(answer.answer.body)) == (
        ("length", 4096) if cut else (None, size)
    )


def test_a_body_without_an_end_is_cut(site: web.Site, settings: Settings) -> None:
    site.route("a.web.test", "/", web.endless)
    answer = got(settings(), most=10_000)
    assert (answer.truncated, len(answer.answer.body)) == ("length", 10_000)


def test_a_body_that_is_not_wanted_is_not_read(site: web.Site, settings: Settings) -> None:
    shown: list[warc.Answer] = []

    def wanted(answer: warc.Answer) -> bool:
        shown.append(answer)
        return False

    site.route("a.web.test", "/", web.response(200, b"x" * 50, {"X-Robots-Tag": "noai"}))
    answer = got(settings(), wanted=wanted)
    assert (answer.truncated, answer.answer.body) == ("unspecified", b"")
    assert [(one.status, one.header("X-Robots-Tag"), one.body) for one in shown] == [
        (200, "noai", b"")
    ]


def test_a_body_that_says_it_is_too_long_is_not_begun(site: web.Site, settings: Settings) -> None:
    site.route(
        "a.web.test", "/", web.response(200, b"<html>", {"Content-Length": "999999"}, length=False)
    )
    answer = got(settings(), most=100, wanted=lambda answer: True)
    assert (answer.truncated, answer.answer.body) == ("length", b"")


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "gzip, br": lambda body: brotli.compress(gzip.compress(body)),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_is_kept_as_it_was_coded(site: web.Site, settings: Settings, coding: str) -> None:
    body = CODINGS[coding](PAGE.encode())
    site.route("a.web.test", "/", web.response(200, body, {"Content-Encoding": coding}))
    answer = got(settings()).answer
    assert answer.body == body
    assert answer.header("Content-Encoding") == coding
    assert content.decode(answer.body, coding, 1000) == PAGE.encode()
    offered = site.log[-1].headers["accept-encoding"]
    assert offered == "gzip, deflate, br, zstd"


def test_a_transfer_coding_is_undone(site: web.Site, settings: Settings) -> None:
    site.route("a.web.test", "/", web.chunked(PAGE))
    assert got(settings()).answer.body == PAGE.encode()


def test_nothing_is_kept_from_one_request_to_the_next(site: web.Site, settings: Settings) -> None:
    cookie = web.response(200, b"", {"Set-Cookie": "visitor=1; Path=/"})
    site.route("a.web.test", "/", cookie)

    async def twice() -> None:
        async with network.session(settings()) as session:
            for _ in range(2):
                await network.ask(session, "http://a.web.test/", MOMENT, most=100)

    asyncio.run(twice())
    assert len(site.log) == 2
    assert not any("cookie" in hit.headers for hit in site.log)


def test_a_redirect_is_an_answer_and_not_followed(site: web.Site, settings: Settings) -> None:
    site.route("a.web.test", "/", web.redirect("/x"))
    assert got(settings()).answer.status == 302
    assert site.paths("a.web.test") == ["/"]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (web_faults.slam, "protocol_error"),
        (web_faults.reset, "unreachable"),
        (web_faults.reset_within, "protocol_error"),
        (web_faults.GARBAGE, "protocol_error"),
        (web_faults.HTTP09, "protocol_error"),
        (web_faults.SHORT, "protocol_error"),
        (web_faults.BAD_CHUNK, "protocol_error"),
        (web_faults.CUT_CHUNK, "protocol_error"),
        (web_faults.TWO_LENGTHS, "protocol_error"),
        (web_faults.NEGATIVE, "protocol_error"),
        (web_faults.NO_STATUS, "protocol_error"),
        (web_faults.NO_VERSION, "protocol_error"),
        (web_faults.LONG_FIELD, "protocol_error"),
        (web_faults.flood_of_fields, "protocol_error"),
        (b"", "protocol_error"),
    ],
)
def test_a_malformed_server_is_an_outcome_and_asked_once(
    site: web.Site, settings: Settings, answer: bytes | web.Handler, outcome: str
) -> None:
    site.route("a.web.test", "/", answer)
    assert ask(settings(), "http://a.web.test/") == [outcome]
    assert len(site.log) == 1


# What is told


def test_an_exchange_says_what_was_sent_to_whom_and_how(site: web.Site, settings: Settings) -> None:
    site.page("a.web.test", "/x?a=b%20c", PAGE)
    answer = got(settings(), "http://a.web.test/x?a=b%20c")
    assert answer.target == "http://a.web.test/x?a=b%20c" and answer.moment == MOMENT
    assert (answer.address, answer.protocols) == (LOCAL, ("http/1.1",))
    assert answer.request and answer.request.line == "GET /x?a=b%20c HTTP/1.1"
    sent = dict(answer.request.headers)
    assert sent["User-Agent"] == "webtext/1.0 (+https://example.org/bot)"
    head = site.log[-1].head.decode().split("\r\n")[1:]
    assert sorted(f"{name}: {value}" for name, value in sent.items()) == sorted(head)


def test_bytes_that_came_are_counted(site: web.Site, settings: Settings) -> None:
    site.route("a.web.test", "/", web.response(200, b"x" * 5000))

    async def count() -> int:
        async with network.session(settings()) as session:
            await network.ask(session, "http://a.web.test/", MOMENT, most=10_000)
            return session.received

    assert asyncio.run(count()) == 5000


# TLS


@pytest.fixture
def authority(tmp_path: Path) -> web_tls.Authority:
    return web_tls.Authority(tmp_path / "authority")


@pytest.mark.parametrize("kind", web_tls.KINDS)
def test_only_a_certificate_that_can_be_verified_is_good(
    settings: Settings, authority: web_tls.Authority, kind: str
) -> None:
    with web.serve(authority.context(("a.web.test",), kind)) as site:
        site.page("a.web.test", "/", PAGE)
        resolve = {"https://*.web.test": f"{LOCAL}:{site.port}"}
        config = settings(resolve=resolve, ca_file=str(authority.ca_file))
        if kind == "good":
            answer = got(config, "https://a.web.test/")
            assert answer.answer.status == 200
            assert answer.protocols == ("http/1.1", "tls/1.3")
        else:
            assert ask(config, "https://a.web.test/") == ["tls_error"]
            assert list(site.log) == []
        # nobody trusts an authority that the recipe does not name
        assert ask(settings(resolve=resolve), "https://a.web.test/") == ["tls_error"]


def test_what_is_no_tls_at_all_is_a_tls_error(site: web.Site, settings: Settings) -> None:
    assert ask(settings(), "https://a.web.test/") == ["tls_error"]


def test_an_old_protocol_is_a_tls_error(settings: Settings, authority: web_tls.Authority) -> None:
    context = authority.context(("a.web.test",))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with web.serve(context) as site:
        site.page("a.web.test", "/", PAGE)
        resolve = {"https://*.web.test": f"{LOCAL}:{site.port}"}
        config = settings(resolve=resolve, ca_file=str(authority.ca_file))
        assert got(config, "https://a.web.test/").protocols == ("http/1.1", "tls/1.2")


# Addresses


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "10.0.0.1",
     "169.254.169.254", "192.168.0.1", "0.0.0.0", "255.255.255.255", "[::1]", "[::]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[fe80::1]", "[fd00::1]",
     "[2002:7f00:1::]", "localhost", "a.localhost", "printer.local", "intranet", "x.internal"],
)  # fmt: skip
def test_no_address_of_a_private_network_is_asked(
    site: web.Site, settings: Settings, host: str
) -> None:
    assert ask(settings(), f"http://{host}:{site.port}/") == ["private_address"]
    assert list(site.log) == []


def test_the_last_look_is_at_the_socket(
    site: web.Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp asks no resolver about literal addresses: these are looked at when they connect."""
    monkeypatch.setattr(network.url, "is_private", lambda host: False)
    config = settings(resolve={"*.web.test": f"{LOCAL}:{site.port + 1}"})
    for host in (LOCAL, "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "10.0.0.1"):
        assert ask(config, f"http://{host}:{site.port}/") == ["private_address"]
    assert list(site.log) == []


def test_only_the_very_port_that_the_recipe_names_is_let_through(
    site: web.Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network.url, "is_private", lambda host: False)
    site.page(LOCAL, "/", PAGE)
    other = settings(resolve={"*.web.test": f"{LOCAL}:{site.port + 1}"})
    assert ask(other, f"http://{LOCAL}:{site.port}/") == ["private_address"]
    named = settings(resolve={"*.web.test": f"{LOCAL}:{site.port}"})
    assert got(named, f"http://{LOCAL}:{site.port}/").answer.status == 200


@pytest.fixture
def six() -> Any:
    """The loopback web on ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    site = web.Site()
    with web.in_thread(lambda: web_server.listen(site, "::1", 0)) as server:
        site.port = web.port_of(server)
        yield site


def test_a_host_is_asked_by_ipv6(six: web.Site, settings: Settings) -> None:
    six.page("a.web.test", "/", PAGE)
    resolve = {"*.web.test": f"[::1]:{six.port}"}
    answer = got(settings(resolve=resolve))
    assert (answer.answer.status, answer.address) == (200, "::1")
    # whatever version is asked by, a place that the recipe names is one
    assert got(settings(resolve=resolve, ip="4")).address == "::1"


@pytest.mark.parametrize(
    ("version", "address"),
    [("6", "8.8.8.8"), ("4", "2606:4700::1111"), ("4", "[2606:4700::1111]")],
)
def test_an_address_of_the_other_version_is_not_connected_to(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, version: str, address: str
) -> None:
    config, bare = settings(ip=version), ipaddress.ip_address(address.strip("[]"))
    family = socket.AF_INET if bare.version == 4 else socket.AF_INET6
    info = (family, socket.SOCK_STREAM, 6, "", (str(bare), 80))
    with pytest.raises(OSError, match=r"crawl\.ip"):
        network._socket(frozenset(), network.FAMILIES[config.ip], info)
    network._socket(frozenset(), network.FAMILIES["any"], info).close()


# Through a proxy


def test_all_goes_through_the_proxy_that_the_recipe_names(
    site: web.Site, settings: Settings
) -> None:
    site.page("named-nowhere.example", "/x", PAGE)
    with proxy.serve(site.port) as led:
        config = settings(proxy=led.place, resolve={})
        answer = got(config, "http://named-nowhere.example/x")
    assert led.asked == ["GET http://named-nowhere.example/x HTTP/1.1"]
    assert (answer.answer.body, answer.address) == (PAGE.encode(), None)
    assert answer.request and answer.request.line == "GET /x HTTP/1.1"


def test_tls_goes_through_the_proxy_and_is_verified(
    settings: Settings, authority: web_tls.Authority
) -> None:
    with (
        web.serve(authority.context(("a.example",))) as site,
        proxy.serve(site.port) as led,
    ):
        site.page("a.example", "/", PAGE)
        config = settings(proxy=led.place, resolve={}, ca_file=str(authority.ca_file))
        assert got(config, "https://a.example/").answer.body == PAGE.encode()
        assert ask(config, "https://b.example/") == ["tls_error"]
    assert led.asked == ["CONNECT a.example:443 HTTP/1.1", "CONNECT b.example:443 HTTP/1.1"]


def test_a_private_address_is_refused_behind_a_proxy_too(
    site: web.Site, settings: Settings
) -> None:
    with proxy.serve(site.port) as led:
        config = settings(proxy=led.place, resolve={})
        for host in (LOCAL, "[::1]", "10.0.0.1", "localhost"):
            assert ask(config, f"http://{host}/") == ["private_address"]
        assert ask(config, f"http://{LOCAL}:{led.port}/") == ["private_address"]
    assert led.asked == []


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_host_that_the_proxy_cannot_reach_is_unreachable(
    site: web.Site, settings: Settings, status: int
) -> None:
    with proxy.serve(site.port, status) as led:
        config = settings(proxy=led.place, resolve={})
        assert ask(config, "https://a.example/") == ["unreachable"]
        assert got(config, "http://a.example/").answer.status == status


@pytest.mark.parametrize("target", ["http://a.example/", "https://a.example/"])
def test_a_proxy_that_is_down_or_shut_blames_no_host(
    site: web.Site, settings: Settings, target: str
) -> None:
    with proxy.serve(site.port, 407) as led, pytest.raises((OSError, network.aiohttp.ClientError)):
        ask(settings(proxy=led.place, resolve={}), target)
    with pytest.raises(OSError, match=str(led.port)):
        ask(settings(proxy=led.place, resolve={}), target)


def test_the_password_of_a_proxy_is_not_archived(site: web.Site, settings: Settings) -> None:
    site.page("a.example", "/", PAGE)
    with proxy.serve(site.port) as led:
        place = led.place.replace("//", "//user:secret@")
        answer = got(settings(proxy=place, resolve={}), "http://a.example/")
    assert "Proxy-Authorization: Basic" in led.heads[0]
    assert answer.request
    assert "proxy-authorization" not in {name.lower() for name, _ in answer.request.headers}


def test_a_crawl_goes_through_a_proxy_robots_txt_first(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.page("a.example", "/", PAGE)
    with proxy.serve(site.port) as led:
        config = settings(proxy=led.place, resolve={})
        row = crawl(config, tmp_path, "http://a.example/")["http://a.example/"]
    assert row["outcome"] == "ok"
    assert [line.split()[1] for line in led.asked] == [
        "http://a.example/robots.txt", "http://a.example/"
    ]  # fmt: skip


# What this machine lacks


def test_what_this_machine_lacks_is_raised_and_blames_no_host(
    site: web.Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(network, "_socket", no_more)
    with pytest.raises(OSError, match="Too many open files"):
        ask(settings(), "http://a.web.test/")
