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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator

from crawl import resync, streams
from crawl.schema import BadInput

Headers = tuple[tuple[str, str], ...]
RECORD_HEADER_BYTES = 64 * 1024
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
REASONS = frozenset({"length", "time", "disconnect", "unspecified"})
"""Why a body is not all that was sent (ISO 28500, section 5.13)."""
MEMBER_BYTES = 1 << 20
"""Read at once where members are looked at whether they are whole."""
IDENTICAL = "identical-payload-digest"
"""How the name of a profile ends, of WARC 1.0 and 1.1, also Webrecorder's own."""
LENGTH = re.compile(r"\d{1,18}")
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
class Repeated:
    """What a revisit says of the response whose payload it has, and its own headers, if any."""

    identity: str
    target: str
    date: str
    answer: Answer | None = None


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
    identity: str = ""
    """Its WARC-Record-ID."""
    start: int | None = None
    """Where it begins in its file, if it can be read alone from there on (`at`)."""
    repeated: Repeated | None = None
    """Of a revisit of an identical payload."""


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

    Whatever damage took is one record of kind `unreadable`: it goes on at the next one that begins
    well, as `crawl/resync.py` finds it. A response that is longer than `max_bytes`, or is not
    HTTP, has no answer. Raises BadInput where the file cannot be opened or holds no record at all.
    """
    with resync.opened(path) as archive:
        while True:
            try:
                record = _next(archive, max_bytes)
            except (EOFError, *streams.DAMAGE) as error:
                if isinstance(error, OSError) and error.errno:  # the disk's or the network's own
                    raise
                goes_on = archive.recover()
                if not goes_on and not archive.has_begun:
                    raise BadInput(f"{path}: is no WARC file that can be read: {error}") from error
                yield Record("unreadable", "", "")
                if not goes_on:
                    return
                continue
            if record is None:
                break
            yield record
    if not archive.has_begun:
        raise BadInput(f"{path}: holds no WARC record")


def at(path: str, start: int, max_bytes: int) -> Record:
    """The record that begins at this place of an archive; of kind `unreadable` where none does."""
    with resync.opened(path, start) as archive:
        try:
            record = _next(archive, max_bytes)
        except (EOFError, *streams.DAMAGE) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            record = None
    return record or Record("unreadable", "", "")


def parsed(block: bytes, max_bytes: int) -> Record:
    """The first record of these bytes of an archive, which begin with it; of kind `unreadable`
    where no whole one stands there. What is too long, or is not HTTP, has no answer."""
    try:
        found = _first(block)
        return _record(found, max_bytes, lambda _: found.reader.read())
    except (EOFError, *streams.DAMAGE):
        return Record("unreadable", "", "")


def _next(archive: resync.Archive, max_bytes: int) -> Record | None:
    """The next record; None at the end. Raises EOFError, or one of `streams.DAMAGE`, where it is
    not whole."""
    head = archive.head()
    if not head:
        return None
    found = _first(head)
    size = found.content_length  # without the HTTP header, once that is parsed
    record = _record(found, max_bytes, archive.block)
    archive.end(size)
    return replace(record, start=archive.start)


def _first(block: bytes) -> Any:
    """The record that begins so. Raises OSError where none does, or says not how long it is."""
    packed = ArchiveIterator(
        io.BytesIO(block), parse_http=False, max_header_len=resync.MAX_HEADER_BYTES
    )
    found = next(iter(packed), None)
    if found is None or not LENGTH.fullmatch(found.headers.get("Content-Length") or ""):
        raise OSError("a record does not say how long it is")
    return found


def date_text(moment: datetime.datetime) -> str:
    """A moment as WARC-Date writes it, in UTC, to the millisecond."""
    utc = moment.astimezone(datetime.UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _record(found: Any, max_bytes: int, read: Callable[[int], bytes]) -> Record:
    """`read` gives the bytes of the block. Raises EOFError where it gives fewer."""
    said = found.headers.get
    kind = (said("WARC-Type") or "").lower()
    target, date = _bare(said("WARC-Target-URI")), said("WARC-Date") or ""
    record = Record(kind, target, date, identity=_bare(said("WARC-Record-ID")))
    if kind == "revisit" and (said("WARC-Profile") or "").strip().endswith(IDENTICAL):
        return _revisit(record, found, read)
    if kind != "response" or not found.is_http:
        return record
    if found.content_length > max_bytes + RECORD_HEADER_BYTES:
        return replace(record, truncated="length")
    answer = _parsed_answer(found, read)
    if answer is None:
        return record
    if (answer.header("Transfer-Encoding") or "").strip().lower() == "chunked":
        body = _unchunked(answer.body)
        if body is None:
            return replace(record, kind="unreadable")
        answer = replace(answer, body=body)
    reason, digest = _reason(said("WARC-Truncated")), said("WARC-Payload-Digest")
    return replace(record, truncated=reason, answer=answer, payload_digest=digest)


def _revisit(record: Record, found: Any, read: Callable[[int], bytes]) -> Record:
    said = found.headers.get
    digest = said("WARC-Payload-Digest")
    first = _bare(said("WARC-Refers-To")), _bare(said("WARC-Refers-To-Target-URI"))
    has_headers = found.is_http and 0 < found.content_length <= RECORD_HEADER_BYTES
    answer = _parsed_answer(found, read) if has_headers else None
    repeated = Repeated(*first, said("WARC-Refers-To-Date") or "", answer)
    return replace(record, payload_digest=digest, repeated=repeated)


def _parsed_answer(found: Any, read: Callable[[int], bytes]) -> Answer | None:
    """The block of a record, as it is; None where it is not HTTP."""
    block = read(found.content_length)
    if len(block) < found.content_length:
        raise EOFError("the last record breaks off")
    try:
        found.set_bytes_content(block)
        # FastWARC would lose all records after one whose chunks are not as they should be.
        found.parse_http(auto_decode="none", quirks_mode=True, max_header_len=len(block))
        return _answer(found, found.reader.read())
    except (OSError, ValueError):
        return None


def _bare(said: str | None) -> str:
    return (said or "").strip("<>")


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
