"""Writes an exchange into a web archive (WARC/1.1, ISO 28500): request, response, metadata.

Each record is its own gzip member, so that any can be read alone. A body is kept as it came over
the wire but for its Transfer-Encoding, which FastWARC would otherwise count into the digests: the
header is dropped, Content-Length rewritten, and both originals kept as `X-Crawler-*`. So is a
reason phrase that is not ASCII. What is not ASCII in a header's value is percent-encoded, as UTF-8:
whatever a server says can be written.

A payload that the file holds already is not written again: its response becomes a `revisit`, and
whoever wants the body is sent to the record that has it. That one is always in the same file.
"""

import datetime
import functools
import hashlib
import importlib.metadata
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import IO, NamedTuple
from urllib.parse import quote

from crawl import cdxj, members, warc

SOFTWARE = "webtext"
SPECIFICATION = "http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/"
IDENTICAL = "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"
FIELDS = "application/warc-fields"
NOTHING: Mapping[str, str] = MappingProxyType({})
EMPTY = warc.digest(b"")

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
NOT_ASCII = re.compile(r"[^\x20-\x7e]")
NOT_TOKEN = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
ASCII = "\t" + "".join(map(chr, range(0x20, 0x7F)))
URI = "".join(map(chr, range(0x21, 0x7F)))
PACKED = frozenset({"gzip", "x-gzip", "br", "zstd", "deflate"})
"""Codings of a body that no compression makes shorter."""
WRITTEN_AS = frozenset({"HTTP/1.0", "HTTP/1.1"})
"""What readers take for the beginning of an answer; of others WARC-Protocol tells."""

Pairs = list[tuple[str, str]]


class First(NamedTuple):
    """The response in a file that holds a payload."""

    identity: str
    target: str
    date: str
    place: warc.Place


@dataclass
class Seen:
    """What a file holds so far: its name, and its payloads by digest, type and coding."""

    file: str | None = None
    payloads: dict[tuple[str, str | None, str | None], First] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """`place` is that of the record that holds the payload; `index` are the lines for the CDXJ."""

    place: warc.Place
    index: tuple[str, ...]


def begin(
    file: IO[bytes], name: str, moment: datetime.datetime, info: Mapping[str, str] = NOTHING
) -> Seen:
    """Writes the warcinfo that a file begins with; `info` is what the crawl says of itself, such as
    `robots` or `http-header-user-agent`."""
    said = {"software": _software(), "format": "WARC File Format 1.1"}
    said |= {"conformsTo": SPECIFICATION, **info}
    about = [("WARC-Date", warc.date_text(moment)), ("WARC-Filename", name)]
    file.write(_record("warcinfo", _identity(), about, FIELDS, _fields(said)))
    return Seen(name)


def write(
    file: IO[bytes],
    exchange: warc.Exchange,
    note: Mapping[str, str] = NOTHING,
    seen: Seen | None = None,
) -> Written:
    """Appends a response, or a revisit where the file holds its payload, between its request and a
    metadata record with `note`, where there are such.

    `seen` is what the file holds, and is told what is added; without it nothing is a revisit.
    Raises ValueError for a name in `note` that is none, as `robots` or `link-id` is.
    """
    seen = Seen() if seen is None else seen
    answer, identity = exchange.answer, _identity()
    target, date = _uri(exchange.target), warc.date_text(exchange.moment)
    about = [("WARC-Target-URI", target), ("WARC-Date", date)]
    origin = [*about, *_origin(exchange)]
    concurrent = [("WARC-Concurrent-To", identity)]
    before, after = b"", b""
    if exchange.request:
        before = _asked(exchange.request, [*origin, *concurrent])
    if note:
        after = _record("metadata", _identity(), [*about, *concurrent], FIELDS, _fields(note))
    digest = warc.digest(answer.body)
    content_type = answer.header("Content-Type")
    key = (digest, content_type, answer.header("Content-Encoding"))
    # a body that was cut is whole nowhere, whatever others are like it
    may_repeat = bool(answer.body) and exchange.truncated is None
    first = seen.payloads.get(key) if may_repeat else None
    record = _answered(exchange, identity, [*origin, ("WARC-Payload-Digest", digest)], first)
    place = warc.Place(file.tell() + len(before), len(record), seen.file, digest)
    if may_repeat and not first:
        seen.payloads[key] = First(identity, target, date, place)
    file.write(b"".join((before, record, after)))
    if first:
        line = cdxj.line(target, date, cdxj.REVISIT, None, place)
        return Written(first.place, (line,))
    kind = cdxj.mime(_encoded(content_type or ""))
    return Written(place, (cdxj.line(target, date, kind, answer.status, place),))


def _asked(request: warc.Request, about: Pairs) -> bytes:
    headers = ((_name(name), _encoded(value)) for name, value in request.headers)
    head = _lines(_encoded(request.line), headers)
    about = [*about, ("WARC-Payload-Digest", EMPTY)]
    return _record("request", _identity(), about, "application/http; msgtype=request", head)


def _answered(exchange: warc.Exchange, identity: str, about: Pairs, first: First | None) -> bytes:
    answer = exchange.answer
    protocol = answer.protocol if answer.protocol in WRITTEN_AS else "HTTP/1.1"
    status = f"{protocol} {answer.status} {NOT_ASCII.sub('?', answer.reason)}".strip()
    head = _lines(status, _kept(answer))
    kind = "application/http; msgtype=response"
    if first:
        about += [
            ("WARC-Profile", IDENTICAL),
            ("WARC-Refers-To", first.identity),
            ("WARC-Refers-To-Target-URI", first.target),
            ("WARC-Refers-To-Date", first.date),
        ]
        return _record("revisit", identity, about, kind, head)
    if exchange.truncated:
        about.append(("WARC-Truncated", exchange.truncated))
    coding = (answer.header("Content-Encoding") or "").strip().lower()
    body = answer.body
    return _record("response", identity, about, kind, head, body, is_packed=coding in PACKED)


def _record(
    kind: str,
    identity: str,
    about: Pairs,
    content_type: str,
    head: bytes,
    body: bytes = b"",
    *,
    is_packed: bool = False,
) -> bytes:
    """A record, its block in two pieces, as one gzip member."""
    hashed = hashlib.sha1(head)
    hashed.update(body)
    fields = [("WARC-Type", kind), ("WARC-Record-ID", identity), *about]
    fields += [
        ("WARC-Block-Digest", warc.named(hashed.digest())),
        ("Content-Type", content_type),
        ("Content-Length", str(len(head) + len(body))),
    ]
    head = _lines("WARC/1.1", fields) + head
    return (members.stored if is_packed else members.compressed)(head, body, b"\r\n\r\n")


def _lines(first: str, fields: Iterable[tuple[str, str]]) -> bytes:
    return "".join(
        [first, "\r\n", *(f"{name}: {value}\r\n" for name, value in fields), "\r\n"]
    ).encode()


def _fields(said: Mapping[str, str]) -> bytes:
    """The body of an application/warc-fields record."""
    for name in said:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r}: is no name of a field in a WARC file, as `link-id`")
    clean = (f"{name}: {CONTROLS.sub(' ', value)}\r\n" for name, value in said.items())
    return "".join(clean).encode()


def _origin(exchange: warc.Exchange) -> Pairs:
    """Whom the answer came from, and in which protocols."""
    names = exchange.protocols
    if not names and exchange.answer.protocol.startswith("HTTP/2"):
        names = ("h2",)
    protocols = [("WARC-Protocol", name) for name in names]
    return [("WARC-IP-Address", exchange.address), *protocols] if exchange.address else protocols


def _kept(answer: warc.Answer) -> Pairs:
    length = str(len(answer.body))
    kept: Pairs = []
    if NOT_ASCII.search(answer.reason):
        kept.append(("X-Crawler-Reason", _encoded(answer.reason)))
    for name, value in answer.headers:
        name, value = _name(name), _encoded(value)
        lower = name.lower()
        if lower == "transfer-encoding" or (lower == "content-length" and value != length):
            name = f"X-Crawler-{name}"
        if lower != "content-length" or value != length:
            kept.append((name, value))
    return [*kept, ("Content-Length", length)]


@functools.lru_cache(maxsize=1024)  # servers use the same few
def _name(name: str) -> str:
    return NOT_TOKEN.sub("?", name) or "?"


def _encoded(value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    return quote(UNWRITABLE.sub("\ufffd", value), safe=ASCII)


def _uri(target: str) -> str:
    return quote(target.encode("utf-8", "replace"), safe=URI)


def _identity() -> str:
    return f"<urn:uuid:{uuid.uuid4()}>"


def _software() -> str:
    try:
        return f"{SOFTWARE}/{importlib.metadata.version(SOFTWARE)}"
    except importlib.metadata.PackageNotFoundError:  # run from its folder, not installed
        return SOFTWARE
