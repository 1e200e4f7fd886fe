"""What an answer makes of a link: pure, from an exchange to a row."""

import datetime
import gzip
import json
from typing import Any

import pytest

from crawl import content, metas, outcomes, warc
from crawl.outcomes import Asked, redirect, row, same_site, signals
from crawl.schema import PageOutcome
from crawl.work import Page

MOMENT = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
WORK: Any = None
BASE = "http://a.web.test/x/y?z=1"


def answer(status: int = 200, body: bytes = b"", **headers: str) -> warc.Answer:
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return warc.Answer(status, "", fields, body)


def page(start: str = "http://a.web.test/", target: str = "", hops: int = 0) -> Page:
    return Page(WORK, b"\1" * 16, "http://a.web.test/#p", start, target or start, hops)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/", "http://a.web.test/"),
        ("w", "http://a.web.test/x/w"),
        ("?q", "http://a.web.test/x/y?q"),
        (" //B.other.test/p#f ", "http://B.other.test/p"),
        ("https://a.web.test", "https://a.web.test"),
        ("/x?#y", "http://a.web.test/x"),
        ("/x?a=1&amp;b=%26lt;", "http://a.web.test/x?a=1&amp;b=%26lt;"),
        ("/caf\u00e9\t", "http://a.web.test/caf%C3%A9"),
        ("/" + "x" * 9000, ""),
        ("http://a.web.test/a b", "http://a.web.test/a%20b"),
        ("http://127.0.0.1/", "http://127.0.0.1/"),
        ("mailto:x@web.test", ""),
        ("javascript:alert(1)", ""),
        ("file:///etc/passwd", ""),
        ("ftp://a.web.test/", ""),
        ("http://user:secret@a.web.test/", ""),
        ("http://[::1/", ""),
        ("http://a.web.test:99999999/", ""),
        ("", None),
    ],
)
def test_where_a_redirect_leads(location: str, target: str | None) -> None:
    for status in (301, 302, 303, 307, 308):
        assert redirect(BASE, answer(status, Location=location)) == target
    for status in (200, 201, 300, 304, 305, 400, 503):
        assert redirect(BASE, answer(status, Location=location)) is None
    assert redirect(BASE, answer(302)) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://a.web.test/", "https://b.c.web.test:8080/", True),
        ("http://a.web.test/", "http://a.webtest/", False),
        ("http://a.co.uk/", "http://b.co.uk/", False),
        ("http://one.github.io/", "http://two.github.io/", False),
        ("http://a.web.test/", "http://127.0.0.1/", False),
        ("http://a.web.test/", "", False),
    ],
)
def test_whose_an_address_is(one: str, other: str, same: bool) -> None:
    assert same_site(one, other) is same


def test_what_may_pass_and_what_will_not() -> None:
    passing = {status for status in range(100, 600) if outcomes.passes(status)}
    assert passing == {429, *range(500, 600)}


NOAI = b'<meta name="robots" content="noai">'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><head>" + NOAI + b"</head>", ("meta: noai",)),
        # beyond 16 KiB and 64 KiB of styles, as real heads have them
        (b"<html><head><style>" + b"x" * 20_000 + b"</style>" + NOAI, ("meta: noai",)),
        (b"<html><head><style>" + b"x" * 100_000 + b"</style>" + NOAI, ("meta: noai",)),
        (b"<html><head></head><body>" + NOAI, ()),
        (b"<html><head><style>" + b"x" * 300_000 + b"</style>" + NOAI, ()),
    ],
)
@pytest.mark.parametrize("coding", [None, "gzip"])
def test_meta_elements_are_looked_for_as_far_as_the_head_goes(
    body: bytes, said: tuple[str, ...], coding: str | None
) -> None:
    fields = {"Content_Encoding": coding} if coding else {}
    sent = gzip.compress(body) if coding else body
    assert signals(answer(200, sent, **fields), "webtext", PageOutcome.OK) == said


def test_a_page_that_ends_its_head_early_is_not_inflated_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    first = content.Opened.first

    def counted(opened: content.Opened, most: int) -> bytes:
        asked.append(most)
        return first(opened, most)

    monkeypatch.setattr(content.Opened, "first", counted)
    long = b"<html><head></head><body>" + b"text " * 100_000
    signals(answer(200, gzip.compress(long), Content_Encoding="gzip"), "webtext", PageOutcome.OK)
    assert asked == [metas.START_BYTES]


def test_headers_count_whatever_became_of_the_page_and_markup_of_good_ones_only() -> None:
    told = answer(200, NOAI, X_Robots_Tag="noindex", tdm_reservation="1")
    headers = ("x-robots-tag: noindex", "tdm-reservation: 1")
    assert signals(told, "webtext", PageOutcome.OK) == (*headers, "meta: noai")
    assert signals(told, "webtext", PageOutcome.TOO_LARGE) == (*headers, "meta: noai")
    assert signals(told, "webtext", PageOutcome.HTTP_ERROR) == headers
    broken = answer(200, b"no gzip", X_Robots_Tag="noindex", Content_Encoding="gzip")
    assert signals(broken, "webtext", PageOutcome.OK) == headers[:1]


def test_the_body_of_a_success_alone_is_taken_and_within_its_bound() -> None:
    packed = gzip.compress(b"0123456789")
    assert outcomes.plain(answer(200, packed, Content_Encoding="gzip"), 4) == b"0123"
    assert outcomes.plain(answer(404, b"0123"), 4) == b""
    assert outcomes.plain(answer(200, b"0123", Content_Encoding="gzip"), 4) == b""


def made(one: Page, **given: Any) -> dict[str, Any]:
    found = row(one, PageOutcome.OK, asked=Asked("webtext/1"), moment=MOMENT, **given)
    return {name: getattr(found, name) for name in found.__struct_fields__}


def test_a_row_says_who_asked_and_from_where() -> None:
    direct = made(page())
    assert json.loads(direct["asked"]) == {"user_agent": "webtext/1"}
    assert (direct["url"], direct["final_url"]) == ("http://a.web.test/#p", "http://a.web.test/")
    hopped = made(page(target="http://a.web.test/2", hops=1))
    assert json.loads(hopped["asked"])["start"] == "http://a.web.test/"
    visit = made(page(start="http://b.test/", hops=3))
    assert json.loads(visit["asked"]) == {
        "user_agent": "webtext/1", "start": "http://b.test/", "hops": 3
    }  # fmt: skip


def test_a_row_without_an_answer_has_nothing_of_one_and_signals_are_joined() -> None:
    bare = made(page())
    names = ("status", "bytes", "digest", "content_type", "content_encoding", "ai_signals")
    assert [bare[name] for name in names] == [None] * 6
    told = answer(200, b"abc", Content_Type="text/html", Content_Encoding="br")
    exchange = warc.Exchange("http://a.web.test/", MOMENT, told)
    said = ("meta: noai", "content-signal: search=yes", "meta: noai")
    full = made(page(), exchange=exchange, said=said)
    assert (full["status"], full["bytes"]) == (200, 3)
    assert full["digest"] is None  # where it is archived, it is told
    assert full["ai_signals"] == "content-signal: search=yes; meta: noai"
