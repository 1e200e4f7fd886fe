"""What sites say of the use of their pages for AI: read, stored, and obeyed unless the recipe says
otherwise; and the records that tell of it."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from crawl import observations, steering, warc
from crawl.config import SIGNALS
from tests import web

from .conftest import Settings, crawl

PAGE = "<html><head><title>x</title></head><body><p>Some text.</p></body></html>"
META = PAGE.replace("<title>", '<meta name="robots" content="noai"><title>')
A = "http://a.web.test/x"
TDM = "/.well-known/tdmrep.json"


def records(folder: Path) -> list[Any]:
    """All records of a ledger's WARC files: type, target, headers, body."""
    from fastwarc.warc import ArchiveIterator

    found = []
    for path in sorted(folder.glob("*.warc.gz")):
        with path.open("rb") as file:
            for record in ArchiveIterator(file, parse_http=False):
                body = record.reader.read()
                kind, headers = record.headers["WARC-Type"], dict(record.headers)
                found.append((kind, headers.get("WARC-Target-URI"), headers, body))
    return found


def only(folder: Path, kind: str, target: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of the one record of this kind and target."""
    ((headers, body),) = [
        (headers, body) for type_, about, headers, body in records(folder)
        if (type_, about) == (kind, target)
    ]  # fmt: skip
    return headers, body


@pytest.mark.parametrize(
    ("fields", "html", "said"),
    [
        ({"X-Robots-Tag": "noai"}, PAGE, "x-robots-tag: noai"),
        ({"X-Robots-Tag": "webtext: noindex"}, PAGE, "x-robots-tag: noindex"),
        ({"tdm-reservation": "1"}, PAGE, "tdm-reservation: 1"),
        ({"Content-Usage": "train-ai=n"}, PAGE, "header content-usage: train-ai=n"),
        ({}, META, "meta: noai"),
        ({}, PAGE.replace("<title>", "<meta name=tdm-reservation content=1><title>"),
         "meta tdm-reservation: 1"),
        ({"X-Robots-Tag": "noimageai"}, META, "meta: noai; x-robots-tag: noimageai"),
    ],
)  # fmt: skip
def test_a_page_that_opts_out_is_not_kept_and_its_wish_is(
    site: web.Site,
    settings: Settings,
    tmp_path: Path,
    fields: dict[str, str],
    html: str,
    said: str,
) -> None:
    site.route("a.web.test", "/x", web.response(200, html.encode(), fields))
    row = crawl(settings(), tmp_path / "obeying", A)[A]
    assert (row["outcome"], row["ai_signals"], row["bytes"]) == ("opted_out", said, 0)
    told, body = only(tmp_path / "obeying", "response", A)
    assert told["WARC-Truncated"] == "unspecified"
    assert body.endswith(b"\r\n\r\n") and b"<p>" not in body
    _, note = only(tmp_path / "obeying", "metadata", A)
    assert f"ai-signals: {said}".encode() in note
    row = crawl(settings(obey=()), tmp_path / "all", A)[A]
    assert (row["outcome"], row["ai_signals"], row["bytes"]) == ("ok", said, len(html))
    assert only(tmp_path / "all", "response", A)[1].endswith(html.encode())


def test_a_body_whose_header_forbids_its_use_is_not_even_read(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    """It would never end."""

    async def endless(writer: Any) -> None:
        writer.write(web.response(200, b"", {"X-Robots-Tag": "noai"}, length=False))
        await writer.drain()
        await asyncio.sleep(30)

    site.route("a.web.test", "/x", endless)
    row = crawl(settings(timeout_s=20.0, retries=0), tmp_path, A)[A]
    assert (row["outcome"], row["status"], row["bytes"]) == ("opted_out", 200, 0)


@pytest.mark.parametrize(
    "line", ["Content-Signal: search=yes, ai-train=no", "Content-Usage: train-ai=n"]
)
def test_a_robots_line_keeps_us_from_asking(
    site: web.Site, settings: Settings, tmp_path: Path, line: str
) -> None:
    site.robots("a.web.test", f"User-agent: *\n{line}\nAllow: /")
    site.page("a.web.test", "/x", PAGE)
    row = crawl(settings(), tmp_path / "obeying", A)[A]
    assert (row["outcome"], row["status"]) == ("opted_out", None)
    assert line.partition(": ")[0].lower() in row["ai_signals"]
    assert site.paths("a.web.test") == ["/robots.txt"]
    row = crawl(settings(obey=("noai",)), tmp_path / "other", A)[A]
    assert row["outcome"] == "ok" and row["ai_signals"]


def test_a_tdm_file_keeps_us_from_asking_what_it_reserves(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    reserved = b'[{"location": "/x", "tdm-reservation": 1}]'
    site.route("a.web.test", TDM, web.response(200, reserved, {"Content-Type": "application/json"}))
    for path in ("/x", "/y"):
        site.page("a.web.test", path, PAGE)
    other = "http://a.web.test/y"
    found = crawl(settings(tdm_file=True), tmp_path / "obeying", A, other)
    assert [found[one]["outcome"] for one in (A, other)] == ["opted_out", "ok"]
    assert found[A]["ai_signals"] == "tdmrep.json: 1"
    assert sorted(site.paths("a.web.test")) == [TDM, "/robots.txt", "/y"]
    assert site.paths("a.web.test")[:2] == ["/robots.txt", TDM]
    only(tmp_path / "obeying", "response", f"http://a.web.test{TDM}")
    crawl(settings(tdm_file=True, obey=("noai",)), tmp_path / "other", A)
    assert site.paths("a.web.test").count(TDM) == 1


@pytest.mark.parametrize(
    ("rules", "outcome", "asked"),
    [("", "opted_out", ["/robots.txt", "/tdm.json"]),
     ("User-agent: *\nDisallow: /tdm", "ok", ["/robots.txt"])],
)  # fmt: skip
def test_a_tdm_file_is_followed_where_the_robots_txt_there_lets_it(
    site: web.Site, settings: Settings, tmp_path: Path, rules: str, outcome: str, asked: list[str]
) -> None:
    site.route("a.web.test", TDM, web.redirect("http://www.web.test/tdm.json"))
    reserved = b'[{"location": "/", "tdm-reservation": 1}]'
    site.route("www.web.test", "/tdm.json", web.response(200, reserved))
    site.robots("www.web.test", rules)
    site.page("a.web.test", "/x", PAGE)
    assert crawl(settings(tdm_file=True), tmp_path, A)[A]["outcome"] == outcome
    assert site.paths("www.web.test") == asked


@pytest.mark.parametrize(
    "answer",
    [web.response(404), web.response(500), web.slam, web.redirect("http://x.other.test/"),
     web.redirect(TDM), web.redirect("mailto:x@a.test"), web.response(200, b"no json")],
    ids=["404", "500", "slam", "offsite", "loop", "mail", "text"],
)  # fmt: skip
def test_a_tdm_file_that_cannot_be_had_reserves_nothing(
    site: web.Site, settings: Settings, tmp_path: Path, answer: bytes | web.Handler
) -> None:
    site.route("a.web.test", TDM, answer)
    site.page("a.web.test", "/x", PAGE)
    assert crawl(settings(tdm_file=True, retries=0), tmp_path, A)[A]["outcome"] == "ok"
    assert site.paths("x.other.test") == []


def test_what_is_obeyed_can_change_without_asking_again(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.route("a.web.test", "/x", web.response(200, META.encode(), {"tdm-reservation": "1"}))
    assert crawl(settings(obey=()), tmp_path, A)[A]["outcome"] == "ok"
    asked = len(site.log)
    for obey, outcome in (
        (SIGNALS, "opted_out"), (("noai",), "opted_out"), (("tdm",), "opted_out"),
        (("noindex", "content-usage"), "ok"), ((), "ok"),
    ):  # fmt: skip
        assert crawl(settings(obey=obey), tmp_path, A)[A]["outcome"] == outcome
    assert len(site.log) == asked


def test_who_opted_out_is_asked_again_where_the_recipe_says_so(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.route("a.web.test", "/x", web.response(200, META.encode()))
    assert crawl(settings(), tmp_path, A)[A]["outcome"] == "opted_out"
    # its body was not kept
    assert crawl(settings(obey=()), tmp_path, A)[A]["outcome"] == "opted_out"
    again = settings(obey=(), retry=("opted_out",))
    assert crawl(again, tmp_path, A)[A]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("fields", "begins", "said"),
    [
        ({"X-Robots-Tag": "noai"}, b"<html>", "x-robots-tag: noai"),
        ({}, META.encode(), "meta: noai"),
    ],
)
def test_a_page_that_is_too_large_and_opts_out_has_opted_out(
    site: web.Site, settings: Settings, tmp_path: Path, fields, begins: bytes, said: str
) -> None:
    large = web.response(200, begins + b"x" * 9000, {"Content-Type": web.HTML} | fields)
    # whose length is told is not read
    large = re.sub(rb"Content-Length: [0-9]+\r\n", b"", large, flags=re.IGNORECASE)
    site.route("a.web.test", "/x", large)
    assert crawl(settings(max_bytes=4096), tmp_path, A)[A]["outcome"] == "opted_out"
    row = crawl(settings(max_bytes=4096, obey=()), tmp_path / "all", A)[A]
    assert (row["outcome"], row["ai_signals"]) == ("too_large", said)
    assert crawl(settings(), tmp_path / "all", A)[A]["outcome"] == "opted_out"


def test_records_tell_of_whom_they_are_and_robots_txt_is_among_them(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.robots("a.web.test", "User-agent: *\nDisallow: /no")
    site.route("a.web.test", "/x", web.redirect("/y"))
    site.page("a.web.test", "/y", PAGE)
    row = crawl(settings(), tmp_path, A)[A]
    kinds = [(kind, target) for kind, target, _, _ in records(tmp_path) if kind != "warcinfo"]
    targets = [f"http://a.web.test/{name}" for name in ("robots.txt", "x", "y")]
    assert kinds == [(kind, target) for target in targets
                     for kind in ("request", "response", "metadata")]  # fmt: skip
    headers, body = only(tmp_path, "response", targets[0])
    assert body.endswith(b"Disallow: /no")
    assert headers["WARC-IP-Address"] == "127.0.0.1" and headers["WARC-Protocol"] == "http/1.1"
    for target in targets[1:]:
        _, told = only(tmp_path, "metadata", target)
        lines = dict(line.split(": ", 1) for line in told.decode().split("\r\n") if line)
        assert lines["link-id"] == row["link_id"].hex()
        assert (lines["link"], lines["robots"]) == (A, "allowed")
    assert b"purpose: robots of http://a.web.test" in only(tmp_path, "metadata", targets[0])[1]
    place = warc.Place(row["warc_offset"], row["warc_length"])
    assert warc.read(tmp_path / row["warc_file"], place).body == PAGE.encode()


def test_a_robots_txt_that_leads_to_a_denied_host_is_not_followed(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    ledger = tmp_path / "observations"
    steering.write(tmp_path / steering.FILE, steering.Steering(deny=("www.web.test",)))
    site.route("a.web.test", "/robots.txt", web.redirect("http://www.web.test/robots.txt"))
    site.page("a.web.test", "/x", PAGE)
    assert crawl(settings(), ledger, A)[A]["outcome"] == "denied"
    assert site.paths("www.web.test") == []
    assert not any(b"unreachable" in path.read_bytes() for path in ledger.glob("*.hosts"))
    assert len(observations.read(ledger)) == 1
