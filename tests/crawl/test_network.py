"""One request: whom it goes to, how long it may take, what is read of it, how it can end."""

import asyncio
import gzip
import resource
import socket
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard

from crawl import content, network, warc
from tests import web, web_faults

from .conftest import LOCAL, MOMENT, Settings, ask, got

PAGE = "<html><body><p>Some text.</p></body></html>"


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


SHORT = web_faults.SHORT.partition(b"\r\n")[2]
CUT_CHUNK = web_faults.CUT_CHUNK.partition(b"\r\n")[2]


async def half_a_redirect(writer: asyncio.StreamWriter) -> None:
    """Half of its body, and nothing more."""
    writer.write(b"HTTP/1.1 301 X\r\nLocation: /x\r\n" + SHORT)
    await asyncio.sleep(web_faults.PATIENCE_S)


@pytest.mark.parametrize(
    ("answer", "status", "why", "body"),
    [
        (b"HTTP/1.1 404 X\r\n" + SHORT, 404, "disconnect", b"<html><p>cut here"),
        (b"HTTP/1.1 301 X\r\nLocation: /x\r\n" + SHORT, 301, "disconnect", b"<html><p>cut here"),
        (b"HTTP/1.1 503 X\r\n" + CUT_CHUNK, 503, "disconnect", b"<p>cut\r\n"),
        (half_a_redirect, 301, "time", b"<html><p>cut here"),
    ],
)
def test_an_answer_that_is_no_success_stands_though_its_body_breaks_off(
    site: web.Site,
    settings: Settings,
    answer: bytes | web.Handler,
    status: int,
    why: str,
    body: bytes,
) -> None:
    site.route("a.web.test", "/", answer)
    for patience in ({"timeout_s": 0.3}, {"read_timeout_s": 0.3}):
        found = got(settings(**patience))
        assert (found.answer.status, found.truncated, found.answer.body) == (status, why, body)


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


def test_an_answer_keeps_its_version_of_http(site: web.Site, settings: Settings) -> None:
    site.route("a.web.test", "/", b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<p>")
    answer = got(settings())
    assert (answer.answer.protocol, answer.protocols) == ("HTTP/1.0", ("http/1.0",))


def test_bytes_that_came_are_counted(site: web.Site, settings: Settings) -> None:
    site.route("a.web.test", "/", web.response(200, b"x" * 5000))

    async def count() -> int:
        async with network.session(settings()) as session:
            await network.ask(session, "http://a.web.test/", MOMENT, most=10_000)
            return session.received

    assert asyncio.run(count()) == 5000


# What this machine lacks


def test_what_this_machine_lacks_is_raised_and_blames_no_host(
    site: web.Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(network, "_socket", no_more)
    with pytest.raises(OSError, match="Too many open files"):
        ask(settings(), "http://a.web.test/")
