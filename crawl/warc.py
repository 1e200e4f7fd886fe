"""Web archives (WARC/1.1, ISO 28500): what they hold, and reading one record or all of a file.

Any crawler's file is read, gz, zst or plain, foreign and damaged ones too: what cannot be read is
said, and never taken for less. `crawl/capture.py` writes our own.
"""

import datetime
import hashlib
import io
import itertools
import re
import string
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from fastwarc.warc import ArchiveIterator

from crawl import streams
from crawl.schema import BadInput

Headers = tuple[tuple[str, str], ...]
RECORD_HEADER_BYTES = 64 * 1024
MAX_HEADER_BYTES = 1 << 20
"""Of a foreign record's own header; FastWARC's default of 32 KiB ends a whole file at one more."""
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
REASONS = frozenset({"length", "time", "disconnect", "unspecified"})
"""Why a body is not all that was sent (ISO 28500, section 5.13)."""
MEMBER_BYTES = 1 << 20
"""Read at once where members are looked at whether they are whole."""
PROTOCOL = re.compile(r"HTTP/\d(?:\.\d)?")
PAIRS = ["".join(pair) for pair in itertools.product(string.ascii_uppercase + "234567", repeat=2)]
"""Two digits of base 32 (RFC 4648, section 6), by their value."""


def header(headers: Headers, name: str) -> str | None:
    """The first value of a header; None where there is none. The codings of a body are a list, be
    it in one line or more (RFC 9110, 5.3): of them, all."""
    name = name.lower()
    values = (value for key, value in headers if key.lower() == name)
    if name == "content-encoding":
        return ", ".join(values) or None
    return next(values, None)


@dataclass(frozen=True)
class Answer:
    """An HTTP response: the body has its Transfer-Encoding undone, its Content-Encoding not."""

    status: int
    reason: str
    headers: Headers
    body: bytes
    protocol: str = "HTTP/1.1"

    def header(self, name: str) -> str | None:
        """The value of a header: see `header`."""
        return header(self.headers, name)


@dataclass(frozen=True)
class Request:
    """An HTTP request as it was sent."""

    line: str
    headers: Headers


@dataclass(frozen=True)
class Exchange:
    """A request for `target` that began at `moment`, and its answer.

    `truncated` is WARC's word (`length`, `time`, `disconnect`, `unspecified`) for why the body is
    not all that was sent; `address` the server's, where there was no proxy; `protocols` are WARC's
    names of what was spoken (`http/1.1`, `tls/1.3`).
    """

    target: str
    moment: datetime.datetime
    answer: Answer
    request: Request | None = None
    truncated: str | None = None
    address: str | None = None
    protocols: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a record stands in its file: the bytes of its gzip member. Who has just written it
    says in which file of the ledger, and the digest of the payload that was archived."""

    offset: int
    length: int
    file: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Record:
    """One record of a foreign archive; `answer` only where it is a whole, readable response.
    `truncated` is one of `REASONS` where its crawler, or `max_bytes`, cut the body."""

    kind: str
    target: str
    date: str
    truncated: str | None = None
    answer: Answer | None = None
    payload_digest: str | None = None
    """As the record itself says it."""


def digest(body: bytes) -> str:
    """The digest of a payload as WARC names it: SHA-1, base 32."""
    return named(hashlib.sha1(body).digest())


def named(sha1: bytes) -> str:
    """A digest as WARC writes it. `base64` does the same in twice the time."""
    number = int.from_bytes(sha1)
    return "sha1:" + "".join([PAIRS[number >> shift & 1023] for shift in range(150, -1, -10)])


def read(path: Path, place: Place) -> Answer:
    """The response at a place. Raises ValueError where none stands there: the file was altered."""
    with path.open("rb") as file:
        file.seek(place.offset)
        member = file.read(place.length)
    try:
        plain = _inflated(member)
        found = ArchiveIterator(io.BytesIO(plain), parse_http=True, max_header_len=len(plain))
        record = next(iter(found), None)
        if record is not None and record.http_headers is not None:
            return _answer(record, record.reader.read())
    except (OSError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: no readable record at {place.offset}: {error}") from error
    raise ValueError(f"{path}: no response at {place.offset}")


def is_whole(path: Path, begin: int, end: int) -> bool:
    """Whether whole gzip members, and nothing else, lie between two places of a file."""
    left, inflater = end - begin, None
    with path.open("rb") as file:
        file.seek(begin)
        while left > 0:
            chunk = file.read(min(left, MEMBER_BYTES))
            if not chunk:
                return False
            left -= len(chunk)
            while chunk:
                inflater = inflater or zlib.decompressobj(wbits=31)
                try:
                    inflater.decompress(chunk)
                except zlib.error:
                    return False
                chunk = inflater.unused_data
                inflater = None if inflater.eof else inflater
    return left == 0 and inflater is None


def _inflated(member: bytes) -> bytes:
    """All of a gzip member, its checksum too: who reads the body alone does not come so far."""
    inflater = zlib.decompressobj(wbits=31)
    plain = inflater.decompress(member)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("no whole gzip member")
    return plain


def records(path: str, max_bytes: int) -> Iterator[Record]:
    """All records of an archive, gz, zst (one stream or many, with a dictionary at its head or
    without) or plain, from any crawler.

    What follows damage cannot be read: it ends the file with one record of kind `unreadable`. So
    does a record that holds less than it says: the file was cut within it. A response that is
    longer than `max_bytes`, or is not HTTP, has no answer. Raises BadInput where the file cannot be
    opened or holds no record at all.
    """
    empty = True
    zst = streams.name_of(path).lower().endswith((".zst", ".zstd"))
    with streams.open_decoded(path) if zst else streams.open_plain(path) as stream:
        try:
            source: Any = _Forward(stream) if zst else stream
            for found in ArchiveIterator(
                source, parse_http=False, fsspec_args=False, max_header_len=MAX_HEADER_BYTES
            ):
                empty = False
                yield _record(found, max_bytes)
        except (EOFError, *streams.DAMAGE) as error:
            if isinstance(error, OSError) and error.errno:  # the disk's or the network's own
                raise
            if empty:
                raise BadInput(f"{path}: is no WARC file that can be read: {error}") from error
            yield Record("unreadable", "", "")
    if empty:
        raise BadInput(f"{path}: holds no WARC record")


def parsed(block: bytes, max_bytes: int) -> Record:
    """The first record of these bytes of an archive, which begin with it; of kind `unreadable`
    where no whole one stands there. What is too long, or is not HTTP, has no answer."""
    try:
        found = ArchiveIterator(
            io.BytesIO(block), parse_http=False, max_header_len=MAX_HEADER_BYTES
        )
        record = next(iter(found), None)
        return _record(record, max_bytes) if record else Record("unreadable", "", "")
    except (EOFError, *streams.DAMAGE):
        return Record("unreadable", "", "")


class _Forward:
    """A stream read forwards: FastWARC panics where one has `seek` or `tell` and cannot."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position = 0

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._position += len(chunk)
        return chunk

    def tell(self) -> int:
        return self._position


def date_text(moment: datetime.datetime) -> str:
    """A moment as WARC-Date writes it, in UTC, to the millisecond."""
    utc = moment.astimezone(datetime.UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _record(found: Any, max_bytes: int) -> Record:
    kind = (found.headers.get("WARC-Type") or "").lower()
    target = (found.headers.get("WARC-Target-URI") or "").strip("<>")
    date = found.headers.get("WARC-Date") or ""
    if not found.headers.get("Content-Length"):  # every record has one: this one was cut before it
        return Record("unreadable", "", "")
    if kind != "response" or not found.is_http:
        return Record(kind, target, date)
    if found.content_length > max_bytes + RECORD_HEADER_BYTES:
        return Record(kind, target, date, truncated="length")
    block = found.reader.read()
    if len(block) < found.content_length:
        return Record("unreadable", target, date)
    try:
        found.set_bytes_content(block)
        # FastWARC would lose all records after one whose chunks are not as they should be.
        found.parse_http(auto_decode="none", quirks_mode=True, max_header_len=len(block))
        answer = _answer(found, found.reader.read())
    except (OSError, ValueError):
        return Record(kind, target, date)
    if (answer.header("Transfer-Encoding") or "").strip().lower() == "chunked":
        body = _unchunked(answer.body)
        if body is None:
            return Record("unreadable", target, date)
        answer = replace(answer, body=body)
    said = found.headers.get("WARC-Payload-Digest")
    reason = _reason(found.headers.get("WARC-Truncated"))
    return Record(kind, target, date, reason, answer, said)


def _reason(said: str | None) -> str | None:
    if said is None:
        return None
    word = said.strip().lower()
    return word if word in REASONS else "unspecified"


def _unchunked(body: bytes) -> bytes | None:
    """A body without its chunks (RFC 9112, section 7.1); None where it breaks off within one. Many
    crawlers undo the coding and keep its header: what is not written in chunks is the body itself;
    the last chunk, which is empty, may be missing."""
    plain, at = bytearray(), 0
    while found := CHUNK_SIZE.match(body, at):
        size, start = int(found.group(1), 16), found.end()
        if at == 0 and body[start + size : start + size + 1] not in (b"", b"\r", b"\n"):
            return body
        if size == 0:
            return bytes(plain)
        plain += body[start : start + size]
        at = start + size
        if at > len(body):
            return None
        at += 2 if body[at : at + 2] == b"\r\n" else 1
    if at == 0:
        return body
    return bytes(plain) if at >= len(body) else None


def _answer(record: Any, body: bytes) -> Answer:
    headers = record.http_headers
    if headers is None or headers.status_code is None:
        raise ValueError("not an HTTP response")
    line = str(headers.status_line).split(" ", 2)
    pairs = tuple((str(name), str(value)) for name, value in headers if name)
    return Answer(
        status=int(headers.status_code),
        reason=line[2] if len(line) > 2 else "",
        headers=pairs,
        body=bytes(body),
        protocol=line[0] if PROTOCOL.fullmatch(line[0]) else "HTTP/1.1",
    )
