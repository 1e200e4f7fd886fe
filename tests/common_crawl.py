"""An archive as Common Crawl lays it out: WARC files of one gzip member a record, and its indexes,
textual and columnar, in their own forms and with their own names of columns."""

import datetime
import gzip
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from crawl import warc
from tests import foreign

LINES_OF_MEMBER = 3
"""3,000 with Common Crawl: the members of a ZipNum index."""

COLUMNS = pa.schema(
    [
        ("url_surtkey", pa.string()),
        ("url", pa.string()),
        ("url_host_name", pa.string()),
        ("url_host_tld", pa.string()),
        ("url_host_registered_domain", pa.string()),
        ("url_protocol", pa.string()),
        ("url_path", pa.string()),
        ("url_query", pa.string()),
        ("fetch_time", pa.timestamp("ms")),
        ("fetch_status", pa.int16()),
        ("content_digest", pa.string()),
        ("content_mime_type", pa.string()),
        ("content_mime_detected", pa.string()),
        ("content_charset", pa.string()),
        ("content_languages", pa.string()),
        ("content_truncated", pa.string()),
        ("warc_filename", pa.string()),
        ("warc_record_offset", pa.int32()),
        ("warc_record_length", pa.int32()),
        ("warc_segment", pa.string()),
    ]
)


@dataclass(frozen=True)
class Capture:
    """One row of an index."""

    url: str
    moment: datetime.datetime
    digest: str | None = "A" * 32
    file: str = "crawl-data/CC-MAIN-2016-07/segments/1454701145519.33/warc/CC-MAIN-00000.warc.gz"
    offset: int = 0
    length: int = 1000
    status: int = 200
    mime: str | None = "text/html"
    truncated: str | None = None

    @property
    def surt(self) -> str:
        """The key that the rows are sorted by."""
        parts = urlsplit(self.url.lower())
        host = re.sub(r"^www\d*\.", "", parts.hostname or "")
        port = f":{parts.port}" if parts.port not in (None, 80, 443) else ""
        query = f"?{parts.query}" if parts.query else ""
        return f"{','.join(reversed(host.split('.')))}{port}){parts.path or '/'}{query}"

    @property
    def stamp(self) -> str:
        return self.moment.strftime("%Y%m%d%H%M%S")


def day(text: str) -> datetime.datetime:
    """Noon of a day, or the moment that is told with it."""
    return datetime.datetime.fromisoformat(text if "T" in text else f"{text}T12:00:00+00:00")


@dataclass
class Archive:
    """A folder of WARC files that grows, and what an index of it says."""

    base: Path
    captures: list[Capture] = field(default_factory=list)

    def add(
        self,
        url: str,
        when: str,
        body: bytes = b"<p>archived",
        *,
        status: int = 200,
        kind: str = "text/html",
        name: str = Capture.file,
        truncated: str | None = None,
        headers: warc.Headers = (),
    ) -> Capture:
        """Writes a capture, behind those that the file holds."""
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        moment = day(when)
        answer = warc.Answer(status, "OK", (("Content-Type", kind), *headers), body)
        with path.open("ab") as file:
            offset = file.tell()
            foreign.write(file, url, warc.date_text(moment), answer, truncated=truncated)
            length = file.tell() - offset
        made = Capture(
            url, moment, warc.digest(body).removeprefix("sha1:"), name, offset, length,
            status, kind.partition(";")[0] or None, truncated,
        )  # fmt: skip
        self.captures.append(made)
        return made


def recorded(source: str, base: Path, files: int = 3) -> Archive:
    """The responses of an archive in files as Common Crawl's, and what an index says of them."""
    made = Archive(base)
    for number, record in enumerate(warc.records(source, 1 << 28)):
        if record.kind == "response" and record.answer:
            kind = record.answer.header("Content-Type") or ""
            made.add(
                record.target,
                record.date[:10],
                record.answer.body,
                kind=kind,
                name=f"crawl-data/CC-MAIN-2026-01/segments/17/warc/{number % files:05d}.warc.gz",
            )
    return made


def cdxj(path: Path, captures: Sequence[Capture]) -> str:
    """`cdx-00000.gz`: sorted lines, in gzip members of a few."""
    lines = []
    for one in sorted(captures, key=lambda row: (row.surt, row.stamp)):
        said = {
            "url": one.url,
            "mime": one.mime,
            "mime-detected": one.mime,
            "status": str(one.status),
            "digest": one.digest,
            "length": str(one.length),
            "offset": str(one.offset),
            "filename": one.file,
            "charset": "UTF-8",
            "languages": "eng",
        } | ({"truncated": one.truncated} if one.truncated else {})
        lines.append(f"{one.surt} {one.stamp} {json.dumps(said)}\n")
    with path.open("wb") as file:
        for start in range(0, len(lines), LINES_OF_MEMBER):
            file.write(gzip.compress("".join(lines[start : start + LINES_OF_MEMBER]).encode()))
    return str(path)


def cdx(path: Path, captures: Sequence[Capture], *, legend: bool = True) -> str:
    """CDX-11."""
    lines = [" CDX N b a m s k r M S V g"] if legend else []
    lines += [
        f"{one.surt} {one.stamp} {one.url} {one.mime or '-'} {one.status} {one.digest or '-'} - - "
        f"{one.length} {one.offset} {one.file}"
        for one in sorted(captures, key=lambda row: (row.surt, row.stamp))
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def columnar(path: Path, captures: Sequence[Capture], *, rows: int = 3, less: Any = ()) -> str:
    """`part-00000-….c000.gz.parquet`, in row groups of so many rows; `less` the columns named."""
    made = []
    for one in sorted(captures, key=lambda row: (row.surt, row.stamp)):
        parts = urlsplit(one.url)
        host = (parts.hostname or "").lower()
        made.append(
            {
                "url_surtkey": one.surt,
                "url": one.url,
                "url_host_name": host,
                "url_host_tld": host.rpartition(".")[2],
                "url_host_registered_domain": ".".join(host.split(".")[-2:]),
                "url_protocol": parts.scheme,
                "url_path": parts.path,
                "url_query": parts.query or None,
                "fetch_time": one.moment.replace(tzinfo=None),
                "fetch_status": one.status,
                "content_digest": one.digest,
                "content_mime_type": one.mime,
                "content_mime_detected": one.mime,
                "content_truncated": one.truncated,
                "warc_filename": one.file,
                "warc_record_offset": one.offset,
                "warc_record_length": one.length,
                "warc_segment": one.file.split("/")[3] if one.file.count("/") > 3 else "",
            }
        )
    table = pa.Table.from_pylist(made, COLUMNS).drop_columns(list(less))
    pq.write_table(table, path, row_group_size=rows, compression="gzip")
    return str(path)


FORMS: dict[str, Callable[[Path, Sequence[Capture]], str]] = {
    "cdx-00000.gz": cdxj,
    "index.cdx": cdx,
    "bare.cdx": lambda path, captures: cdx(path, captures, legend=False),
    "part-00000.c000.gz.parquet": columnar,
    "query.parquet": lambda path, captures: columnar(
        path, captures, less=("url_surtkey", "url_host_name", "content_mime_type")
    ),
}
"""Every form that an index has."""


@dataclass
class Served:
    """A store of archives on loopback: what it was asked, and how it is to answer."""

    base: str
    log: list[tuple[str, str | None]] = field(default_factory=list)
    failures: int = 0
    """Answers of status 503 that it still gives."""
    status: int = 0
    """The status of every answer, unless 0."""
    gives_parts: bool = True
    shift: int = 0
    """By which the bytes that it gives are others than those that it is asked for."""
    most: int = 1 << 30
    """Bytes that it gives at once, however many it is asked for."""
    agents: set[str | None] = field(default_factory=set)


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """The files of a folder over HTTP, in parts."""
    told = Served("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            told.log.append((self.path, asked))
            told.agents.add(self.headers.get("User-Agent"))
            path = folder / self.path.lstrip("/")
            if told.failures or told.status:
                told.failures -= bool(told.failures)
                self._answer(told.status or 503, b"later", {})
            elif not path.is_file():
                self._answer(404, b"", {})
            elif asked and told.gives_parts:
                self._part(path.read_bytes(), asked)
            else:
                self._answer(200, path.read_bytes(), {})

        def _part(self, content: bytes, asked: str) -> None:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            first += told.shift
            if first >= len(content):
                self._answer(416, b"", {})
                return
            some = content[first : last + 1][: told.most]
            span = f"bytes {first}-{first + len(some) - 1}/{len(content)}"
            self._answer(206, some, {"Content-Range": span})

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.base = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


def moved(capture: Capture, **changed: Any) -> Capture:
    """The same row but for what is named."""
    return replace(capture, **changed)
