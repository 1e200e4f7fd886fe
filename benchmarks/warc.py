"""What it costs to write a page into a web archive: request, response, metadata, digests, all.

Usage: python benchmarks/warc.py [ARCHIVE] [PAGES] [ROUNDS]. Real pages, once plain and once coded
by gzip as most servers send them, are written by the program, also with each library that
compresses, and by warcio with the same records; each peer's best round counts, in CPU time. Then
the ledger: the same with rows, journal, index, syncs and the end of the segments.
"""

import datetime
import gzip
import io
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isal import isal_zlib
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter
from zlib_ng import zlib_ng

sys.path[0] = str(Path(__file__).parents[1])  # where `crawl` is the package, not the script here

from crawl import capture, members, observations, warc  # noqa: E402
from crawl.schema import Observation, PageOutcome  # noqa: E402

ARCHIVE = Path(__file__).parents[2] / "shared/data/web/wcxb-dev.warc.zst"
MOMENT = datetime.datetime(2016, 5, 4, 3, 2, 1, 123000, tzinfo=datetime.UTC)
NOTE = {
    "link-id": "0123456789abcdef0123456789abcdef",
    "robots": "allowed",
    "ai-signals": "x-robots-tag: noai; content-signal: ai-train=no",
}
REQUEST = warc.Request(
    "GET /2016/05/04/some-page.html HTTP/1.1",
    (
        ("Host", "www.example.com"),
        ("User-Agent", "webtext/1.0 (+https://example.org/bot)"),
        ("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ),
)
HEADERS = (
    ("Date", "Wed, 04 May 2016 03:02:01 GMT"),
    ("Server", "nginx"),
    ("Content-Type", "text/html; charset=utf-8"),
    ("Vary", "Accept-Encoding"),
    ("Cache-Control", "max-age=300, public"),
    ("ETag", '"5f4c-61d2a"'),
    ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
    ("Link", '<https://www.example.com/wp-json/>; rel="https://api.w.org/"'),
    ("Connection", "keep-alive"),
    ("Transfer-Encoding", "chunked"),
)
Written = Callable[[list[warc.Exchange]], int]


def main(archive: Path, pages: int, rounds: int) -> None:
    bodies = [one.answer.body for one in warc.records(str(archive), 10**8) if one.answer]
    bodies = bodies[:: max(1, len(bodies) // pages)]
    for kind, coding in (("plain", None), ("gzip-coded", "gzip")):
        exchanges = [exchange(number, body, coding) for number, body in enumerate(bodies)]
        size = sum(len(one.answer.body) for one in exchanges) / len(exchanges)
        print(f"{len(exchanges)} pages, {kind}, {size / 1000:.1f} kB each; best of {rounds} rounds")
        print(f"{'':26}{'CPU ms/page':>12}{'kB/page':>10}")
        for name, write in peers().items():
            seconds, total = best(write, exchanges, rounds)
            print(f"{name:26}{report(seconds, total, len(exchanges))}")
        seconds, total = best(ledger, exchanges, rounds)
        print(f"{'the ledger, with rows':26}{report(seconds, total, len(exchanges))}")


def report(seconds: float, total: int, pages: int) -> str:
    return f"{seconds / pages * 1000:>12.3f}{total / pages / 1000:>10.1f}"


def best(write: Written, exchanges: list[warc.Exchange], rounds: int) -> tuple[float, int]:
    found = []
    for _ in range(rounds):
        began = time.process_time()
        total = write(exchanges)
        found.append((time.process_time() - began, total))
    return min(found)


def exchange(number: int, body: bytes, coding: str | None) -> warc.Exchange:
    headers = HEADERS + ((("Content-Encoding", coding),) if coding else ())
    answer = warc.Answer(200, "OK", headers, gzip.compress(body, 6) if coding else body)
    target = f"https://www.example{number}.com/2016/05/04/some-page.html"
    return warc.Exchange(
        target, MOMENT, answer, REQUEST, None, "192.0.2.7", ("http/1.1", "tls/1.3")
    )


def peers() -> dict[str, Written]:
    found: dict[str, Written] = {"warcio (zlib 9)": by_warcio}
    libraries: list[tuple[str, Any, tuple[int, ...]]] = [
        ("zlib", zlib, (1, 6, 9)),
        ("isal", isal_zlib, (0, 1, 2, 3)),
        ("zlib-ng", zlib_ng, (1, 2, 6)),
    ]
    for name, library, levels in libraries:
        found |= {f"own, {name} {level}": by_own(library, level) for level in levels}
    found["own, as it is"] = own
    return found


def own(exchanges: list[warc.Exchange]) -> int:
    """As the program writes them: what came compressed is stored."""
    seen = capture.Seen("x.warc.gz")
    with tempfile.TemporaryFile() as file:
        for one in exchanges:
            capture.write(file, one, NOTE, seen)
        return file.tell()


def by_own(library: Any, level: int) -> Written:
    """The same, all of it compressed by a library that has zlib's functions."""

    def compressed(*pieces: bytes) -> bytes:
        return bytes(library.compress(b"".join(pieces), level, members.GZIP))

    def write(exchanges: list[warc.Exchange]) -> int:
        chosen = members.compressed, members.stored
        members.compressed, members.stored = compressed, compressed
        try:
            return own(exchanges)
        finally:
            members.compressed, members.stored = chosen

    return write


def by_warcio(exchanges: list[warc.Exchange]) -> int:
    """The same records, as the program had them written before it had a writer of its own."""
    with tempfile.TemporaryFile() as file:
        write_by_warcio(WARCWriter(file, gzip=True, warc_version="1.1"), exchanges)
        return file.tell()


def write_by_warcio(writer: Any, exchanges: list[warc.Exchange]) -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in NOTE.items()).encode()
    for one in exchanges:
        about = {"WARC-Date": warc.date_text(one.moment), "WARC-IP-Address": str(one.address)}
        head = StatusAndHeaders("200 OK", list(capture._kept(one.answer)), protocol="HTTP/1.1")
        response = writer.create_warc_record(
            one.target,
            "response",
            payload=io.BytesIO(one.answer.body),
            http_headers=head,
            warc_headers_dict=about,
        )
        about["WARC-Concurrent-To"] = response.rec_headers.get_header("WARC-Record-ID")
        asked = StatusAndHeaders(REQUEST.line, list(REQUEST.headers), is_http_request=True)
        request = writer.create_warc_record(
            one.target,
            "request",
            payload=io.BytesIO(),
            http_headers=asked,
            warc_headers_dict=dict(about),
        )
        metadata = writer.create_warc_record(
            one.target,
            "metadata",
            payload=io.BytesIO(fields),
            length=len(fields),
            warc_content_type=capture.FIELDS,
            warc_headers_dict=dict(about),
        )
        for record in (request, response, metadata):
            writer.write_record(record)


def ledger(exchanges: list[warc.Exchange]) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with observations.Writer(folder, b"\0" * 16, b"\xff" * 16, label="live") as writer:
            for number, one in enumerate(exchanges):
                place = writer.archive(one, NOTE)
                writer.append(row(number, one, place), place)
        return sum(path.stat().st_size for path in folder.iterdir())


def row(number: int, one: warc.Exchange, place: warc.Place) -> Observation:
    return Observation(
        link_id=number.to_bytes(16, "big"),
        url_key=one.target,
        url=one.target,
        outcome=PageOutcome.OK,
        source="live",
        status=200,
        final_url=one.target,
        content_type=one.answer.header("Content-Type"),
        content_encoding=one.answer.header("Content-Encoding"),
        bytes=len(one.answer.body),
        digest=place.digest,
        fetched_at=one.moment,
        elapsed_s=0.1,
        asked='{"user_agent": "webtext/1.0 (+https://example.org/bot)"}',
    )


if __name__ == "__main__":
    words = sys.argv[1:]
    source = Path(words[0]) if words else ARCHIVE
    if not source.exists():
        sys.exit(f"{source} is not here: name an archive of pages, as pages.warc.gz")
    main(source, *(int(word) for word in [*words[1:], *["300", "5"][len(words[1:]) :]]))
