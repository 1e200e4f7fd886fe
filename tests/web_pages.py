"""What the pages of a world do, and what asking for each must end as."""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import brotli  # type: ignore[import-untyped]
import zstandard

from tests import web_faults
from tests.web_answers import chunked, redirect, response
from tests.web_server import Answer

RETRY_AFTER_S = 1
OF_ANOTHER = "/t/of-"
"""Begins the path of a page to which one of another host leads; then comes that host."""


class World(Protocol):
    """What a page must know of the world it stands in."""

    hosts: int
    token: str
    crawl_delay_s: float

    def host(self, number: int) -> str: ...
    def text(self, number: int, path: str) -> str: ...
    def page_of(self, number: int, path: str) -> str: ...


@dataclass(frozen=True)
class Place:
    """A path that is asked for, for the so manieth time."""

    world: World
    number: int
    host: str
    path: str
    times: int

    @property
    def html(self) -> str:
        """The page that stands here."""
        text = self.world.text(self.number, self.path)
        return (
            f"<!doctype html><html><head><title>x</title></head><body><p>{text}</p></body></html>"
        )


@dataclass(frozen=True)
class Page:
    """`passing`: whether asking again may help, so that it will be. `asks`: how often it is asked
    for beside that, at most."""

    answer: Callable[[Place], Answer]
    outcome: str
    passing: bool = False
    asks: int = 1


def answer(place: Place) -> Answer:
    """What is answered at a path that is no robots.txt."""
    if place.path.startswith("/t/"):  # where redirects lead
        return _plain(place)
    if place.path.startswith("/chain/"):
        _, _, page, left = place.path.split("/")
        return redirect(f"/chain/{page}/{int(left) - 1}" if left != "0" else f"/t/{page}")
    if not place.path.startswith(("/p/", "/private/")):
        return response(404, b"not here")
    return KINDS[place.world.page_of(place.number, place.path)].answer(place)


def _plain(place: Place) -> Answer:
    return response(200, place.html.encode())


def _typed(kind: str, charset: str = "utf-8") -> Callable[[Place], Answer]:
    fields = {"Content-Type": kind}
    return lambda place: response(200, place.html.encode(charset), fields)


def _coded(coding: str, code: Callable[[bytes], bytes]) -> Callable[[Place], Answer]:
    fields = {"Content-Encoding": coding}
    return lambda place: response(200, code(place.html.encode()), fields)


def _untyped(place: Place) -> Answer:
    body = place.html.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _http10(place: Place) -> Answer:
    return b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + place.html.encode()


def _meta(content: str, **fields: str) -> Callable[[Place], Answer]:
    def made(place: Place) -> Answer:
        html = place.html.replace("<title>", content + "<title>", 1)
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        return response(200, html.encode(), headers)

    return made


def _status(status: int, **fields: str) -> Callable[[Place], Answer]:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return lambda place: response(status, b"<html>no", headers)


def _at_first(status: int, **fields: str) -> Callable[[Place], Answer]:
    refused = _status(status, **fields)
    return lambda place: refused(place) if place.times == 1 else _plain(place)


def _to(location: str, status: int = 302) -> Callable[[Place], Answer]:
    return lambda place: redirect(
        location.format(
            host=place.host.removeprefix("www."),
            other=place.world.host((place.number + 1) % place.world.hosts),
            path=place.path,
            page=place.path.rpartition("/")[2],
        ),
        status,
    )


def _always(given: Answer) -> Callable[[Place], Answer]:
    return lambda place: given


def _deflated(body: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(body) + deflater.flush()


KINDS: dict[str, Page] = {
    # as it should be, in one way or another
    "plain": Page(_plain, "ok"),
    "gzip": Page(_coded("gzip", lambda body: gzip.compress(body, mtime=0)), "ok"),
    "deflate": Page(_coded("deflate", zlib.compress), "ok"),
    "raw_deflate": Page(_coded("deflate", _deflated), "ok"),
    "br": Page(_coded("br", brotli.compress), "ok"),
    "zstd": Page(_coded("zstd", lambda body: zstandard.compress(body)), "ok"),
    "chunked": Page(lambda place: chunked(place.html, 100), "ok"),
    "http10": Page(_http10, "ok"),
    "untyped": Page(_untyped, "ok"),
    "as_text": Page(_typed("text/plain"), "ok"),
    "empty": Page(_always(response(200)), "ok"),
    # charsets, right and wrong
    "latin": Page(_typed("text/html; charset=iso-8859-1", "latin-1"), "ok"),
    "wrong_charset": Page(_typed("text/html; charset=utf-8", "utf-16"), "ok"),
    "no_such_charset": Page(_typed("text/html; charset=klingon"), "ok"),
    "utf16": Page(_typed("text/html", "utf-16"), "ok"),
    "meta_charset": Page(_meta('<meta charset="shift_jis">', Content_Type="text/html"), "ok"),
    # no web page
    "pdf": Page(_always(response(200, b"%PDF-1.5 x", {"Content-Type": "text/html"})), "not_html"),
    "image": Page(_always(response(200, b"\x89PNG", {"Content-Type": "image/png"})), "not_html"),
    "words": Page(
        _always(response(200, b"just words", {"Content-Type": "text/plain"})), "not_html"
    ),
    # errors
    "not_found": Page(_status(404), "http_error"),
    "gone": Page(_status(410), "http_error"),
    "forbidden": Page(_status(403), "http_error"),
    "broken": Page(_status(500), "http_error", passing=True),
    "unavailable": Page(_status(503, Retry_After=str(RETRY_AFTER_S)), "http_error", passing=True),
    "flaky": Page(_at_first(503), "ok", passing=True),
    "busy": Page(_at_first(429, Retry_After=str(RETRY_AFTER_S)), "ok", passing=True),
    "odd_status": Page(_status(799), "http_error"),
    # redirects
    "moved": Page(_to("/t/{page}", 301), "ok"),
    "moved_www": Page(_to("http://www.{host}/t/{page}", 308), "ok"),
    "chain": Page(_to("/chain/{page}/2"), "ok"),
    "loop": Page(_to("{path}"), "redirect_loop", asks=21),
    "long_chain": Page(_to("/chain/{page}/50"), "redirect_loop"),
    "offsite": Page(_to(f"http://{{other}}{OF_ANOTHER}{{host}}"), "ok"),
    "to_mail": Page(_to("mailto:x@{host}"), "protocol_error"),
    "to_loopback": Page(_to("http://127.0.0.1/"), "private_address"),
    "nowhere": Page(_status(302), "http_error"),
    # too much, too slow, never
    "too_large": Page(
        _always(response(200, b"<html>", {"Content-Length": "99999999999"}, length=False)),
        "too_large",
    ),
    "endless": Page(_always(web_faults.endless), "too_large"),
    "hangs": Page(_always(web_faults.hang), "timeout", passing=True),
    "half_a_head": Page(_always(web_faults.half_a_head), "timeout", passing=True),
    "half_a_body": Page(_always(web_faults.half_a_body), "timeout", passing=True),
    "drip_head": Page(_always(web_faults.drip_head), "timeout", passing=True),
    "drip_body": Page(_always(web_faults.drip_body), "timeout", passing=True),
    "hints": Page(_always(web_faults.flood_of_hints), "timeout", passing=True),
    # no HTTP, or broken off
    "slams": Page(_always(web_faults.slam), "protocol_error", passing=True),
    "reset": Page(_always(web_faults.reset), "unreachable", passing=True),
    "reset_within": Page(_always(web_faults.reset_within), "protocol_error", passing=True),
    "garbage": Page(_always(web_faults.GARBAGE), "protocol_error", passing=True),
    "http09": Page(_always(web_faults.HTTP09), "protocol_error", passing=True),
    "short": Page(_always(web_faults.SHORT), "protocol_error", passing=True),
    "bad_chunk": Page(_always(web_faults.BAD_CHUNK), "protocol_error", passing=True),
    "cut_chunk": Page(_always(web_faults.CUT_CHUNK), "protocol_error", passing=True),
    "two_lengths": Page(_always(web_faults.TWO_LENGTHS), "protocol_error", passing=True),
    "negative": Page(_always(web_faults.NEGATIVE), "protocol_error", passing=True),
    "no_status": Page(_always(web_faults.NO_STATUS), "protocol_error", passing=True),
    "no_version": Page(_always(web_faults.NO_VERSION), "protocol_error", passing=True),
    "long_field": Page(_always(web_faults.LONG_FIELD), "protocol_error", passing=True),
    "many_fields": Page(_always(web_faults.flood_of_fields), "protocol_error", passing=True),
    # what is small as it is sent
    "gzip_bomb": Page(lambda place: web_faults.bomb("gzip"), "ok"),
    "deflate_bomb": Page(lambda place: web_faults.bomb("deflate"), "ok"),
    "br_bomb": Page(lambda place: web_faults.bomb("br"), "ok"),
    "zstd_bomb": Page(lambda place: web_faults.bomb("zstd"), "ok"),
    "nested_bomb": Page(lambda place: web_faults.bomb_in_a_bomb(), "ok"),
    "undecodable": Page(_coded("gzip", lambda body: b"\x00" + body[::-1]), "ok"),
    # who does not want to be learnt from
    "noai_field": Page(_meta("", X_Robots_Tag="noai"), "opted_out"),
    "noindex_field": Page(_meta("", X_Robots_Tag="noindex"), "opted_out"),
    "noai_meta": Page(_meta('<meta name="robots" content="noai">'), "opted_out"),
    "noindex_meta": Page(_meta('<meta name="robots" content="noindex">'), "opted_out"),
    "tdm_field": Page(_meta("", tdm_reservation="1"), "opted_out"),
    "tdm_meta": Page(_meta('<meta name="tdm-reservation" content="1">'), "opted_out"),
}

WEIGHTS = {kind: 1.0 for kind in KINDS} | {"plain": 60.0, "gzip": 40.0, "br": 10.0, "chunked": 10.0}
"""Most pages are good ones."""
PROPER = {kind: WEIGHTS[kind] for kind, page in KINDS.items() if page.outcome == "ok"} | {
    kind: 1.0 for kind, page in KINDS.items() if page.outcome == "http_error" and not page.passing
}
"""Pages that end soon."""
