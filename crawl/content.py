"""What the bytes of a body say: its Content-Encoding undone within a bound, its charset, its kind.

Pure functions of bytes and headers. Nothing here trusts a length that a server states.
"""

import codecs
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import brotli  # type: ignore[import-untyped]
import zstandard
from charset_normalizer import from_bytes
from zlib_ng import zlib_ng

from crawl.schema import PageOutcome

HEAD_BYTES = 1024
"""In which markup shows itself, and (the HTML standard, 13.2.3.2) a meta charset must stand."""
DETECT_BYTES = 32 * 1024
ZSTD_WINDOW = 2**23  # the most that a Content-Encoding may ask for (RFC 9659)
CODED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""How gzip and zstd begin: in a body that does, markup is what could not be packed."""
SHOWN_BYTES = 16 * 1024
"""Of a coded body at once to zlib, which copies what it leaves over: of a long one the square."""
PIECE = 1024 * 1024
"""Decoded at once: the bound itself, which a recipe can set, may be more than there is memory."""
FREE_BYTES = 1 << 20
"""To which every body may grow, however short it was: it harms nobody, and short ones pack best."""
GZIP_MEMBERS = 4096
"""Members that one body may be made of. An honest one has one, or one for each 64 KiB."""

MARKUP = re.compile(
    rb"<(?:!doctype\s+html|html|head|body|title|meta|script|style|div|table|article|h1|p|a)\b",
    re.IGNORECASE,
)
BINARY = (b"%PDF-", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"PK\x03\x04", b"RIFF", b"\x7fELF")
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
VAGUE_TYPES = frozenset({"", "text/plain", "application/octet-stream", "application/xml"})
CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';>,]+)", re.IGNORECASE)
META_CHARSET = re.compile(rb"<meta[^>]{0,400}?charset\s*=\s*[\"']?\s*([^\s\"'/;>]+)", re.IGNORECASE)
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"),
         (codecs.BOM_UTF16_BE, "utf-16-be"))  # fmt: skip

# The codecs that pages may name, and what the Encoding standard reads these names as. A list:
# Python has codecs that are no charsets, and some (idna, punycode) that are slow on hostile bytes.
CODECS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "cp1252": "cp1252", "iso8859-9": "cp1254",
    "utf-8": "utf-8", "utf-16": "utf-16-le", "utf-16-le": "utf-16-le", "utf-16-be": "utf-16-be",
    "gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030", "big5": "big5hkscs",
    "big5hkscs": "big5hkscs", "shift_jis": "cp932", "cp932": "cp932", "euc_jp": "euc_jp",
    "iso2022_jp": "iso2022_jp", "euc_kr": "cp949", "cp949": "cp949", "tis-620": "cp874",
    "iso8859-11": "cp874", "cp874": "cp874", "koi8-r": "koi8-r", "koi8-u": "koi8-u",
    "mac-roman": "mac-roman", "mac-cyrillic": "mac-cyrillic", "cp866": "cp866",
    **{name: name for name in (f"iso8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16))},
    **{name: name for name in (f"cp125{n}" for n in (0, 1, 3, 4, 5, 6, 7, 8))},
}  # fmt: skip


NO_PAGES = frozenset({204, 205, 206})
"""Successes without content, or with a part of one, for which nobody asked."""
CODINGS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd"})
FOREIGN_CODINGS = frozenset(
    {"compress", "x-compress", "exi", "pack200-gzip", "aes128gcm", "dcb", "dcz"}
)
"""The others of IANA's registry, which nobody asked for and nothing here undoes."""
Room = Callable[[], int]
INVALID: type[Exception] = zlib_ng.error  # type: ignore[assignment]  # its stub names no class
FAULTS = (INVALID, brotli.error, zstandard.ZstdError)


class Undecodable(ValueError):
    """The body is not what its Content-Encoding says."""


class TooLarge(ValueError):
    """The body grows beyond the bound when it is decoded."""


class _Padding(Exception):
    """What follows the last member of a body is none; so much was decoded before it."""

    def __init__(self, whole: int) -> None:
        self.whole = whole


class Opened:
    """A body whose decoded beginning is asked for, then more of it: no byte is decoded twice."""

    def __init__(self, body: bytes, coding: str | None, most: int) -> None:
        """`most`: bytes that will be asked for at the most. Raises Undecodable."""
        *before, name = _codings(coding)
        ample = most + max(HEAD_BYTES, most >> 8)  # what cannot be packed grows a little
        for one in before:
            body = Opened(body, one, ample).first(ample)
        if _is_said_again(name, before, body):
            name = ""
        self._body, self._name = body, name
        self._plain: bytes | bytearray = bytearray() if name else body
        self._most = 0
        self._pieces = _pieces(body, name, self._room) if name else iter(())

    def first(self, most: int) -> bytes:
        """The first bytes, at most so many. Raises Undecodable: then nothing can be asked for."""
        self._most = most
        try:
            while len(self._plain) < most and (piece := next(self._pieces, None)):
                self._plain += piece
        except _Padding as end:
            self._plain = self._plain[: end.whole]
        except FAULTS as error:
            if self._body.startswith(CODED) or not MARKUP.search(self._body[:HEAD_BYTES]):
                raise Undecodable(f"Content-Encoding {self._name}: {error}") from error
            self._plain = self._body  # it is decoded already
        if isinstance(self._plain, bytes):
            return self._plain[:most]
        return bytes(memoryview(self._plain)[:most])  # one copy: it may be as long as the bound

    def _room(self) -> int:
        # No byte more: what is damaged beyond what is wanted is nobody's concern.
        return min(PIECE, self._most - len(self._plain))


def decode(body: bytes, coding: str | None, limit: int, ratio: float = math.inf) -> bytes:
    """The body with its Content-Encoding (RFC 9110, 8.4) undone, at most `limit` bytes and, beyond
    `FREE_BYTES`, at most `ratio` times as many as were transferred, however many codings there are.

    A body that breaks off gives what it holds. One that was decoded already, as some archives keep
    it, is taken as it is. Raises TooLarge and Undecodable.
    """
    most = int(min(limit, max(FREE_BYTES, len(body) * ratio)))
    codings = _codings(coding)
    for number, name in enumerate(codings):
        if _is_said_again(name, codings[:number], body):
            continue
        body = first(body, name, most + 1)
        if len(body) > most:
            raise TooLarge(f"more than {most} bytes")
    return body


def first(body: bytes, coding: str | None, most: int) -> bytes:
    """The first bytes, at most so many, of a decoded body, however long. Raises Undecodable."""
    return Opened(body, coding, most).first(most)


def head(body: bytes, coding: str | None) -> bytes:
    """The first bytes of a decoded body; none where it cannot be decoded."""
    try:
        return first(body, coding, HEAD_BYTES)
    except Undecodable:
        return b""


def outcome(
    status: int, content_type: str | None, coding: str | None, body: bytes, *, cut: bool
) -> PageOutcome:
    """What an answer that is no redirect makes of its page, from the web or from an archive.
    `cut`: the body is not all that was sent, or was not read at all."""
    if not 200 <= status < 300 or status in NO_PAGES:
        return PageOutcome.HTTP_ERROR
    unread = cut and not body
    if not (may_be_html(content_type) if unread else is_html(content_type, head(body, coding))):
        return PageOutcome.NOT_HTML
    return PageOutcome.TOO_LARGE if cut else PageOutcome.OK


def text(body: bytes, content_type: str | None) -> str:
    """The characters of a decoded body: a byte order mark decides, then the HTTP charset, then a
    meta element, then the bytes themselves. What fits no charset becomes U+FFFD."""
    for mark, codec in MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(codec, "replace")
    said = CHARSET.search(content_type or "")
    meta = META_CHARSET.search(body[:HEAD_BYTES])
    name = (_codec(said.group(1)) if said else None) or (
        _meta_codec(meta.group(1).decode("ascii", "replace")) if meta else None
    )
    return body.decode(name or _detected(body), "replace")


def is_html(content_type: str | None, first: bytes) -> bool:
    """Whether a decoded body is a web page, by what the server says and by its first bytes."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if first.startswith(BINARY):
        return False
    if kind in HTML_TYPES:
        return True
    return kind in VAGUE_TYPES and MARKUP.search(first[:HEAD_BYTES]) is not None


def may_be_html(content_type: str | None) -> bool:
    """Whether it is worth reading the body to find out."""
    return (content_type or "").partition(";")[0].strip().lower() in HTML_TYPES | VAGUE_TYPES


def _codings(coding: str | None) -> list[str]:
    """In the order in which they are to be undone; one at least, which may be none: "". Words that
    are no codings, as `utf-8` and `none`, are passed over, as browsers do."""
    named = [part.strip().lower() for part in reversed((coding or "").split(","))]
    return [name for name in named if name in CODINGS | FOREIGN_CODINGS] or [""]


def _is_said_again(name: str, before: Sequence[str], body: bytes) -> bool:
    """Whether a coding was used once and named twice, as by some proxies."""
    return name in before and not body.startswith(CODED)


def _pieces(body: bytes, name: str, room: Room) -> Iterator[bytes]:
    """A body with one coding undone, no more at a time than there is room for. Raises one of FAULTS
    where it is not what it says."""
    undo = {
        "gzip": _gunzip, "x-gzip": _gunzip, "deflate": _inflate, "br": _unbrotli, "zstd": _unzstd
    }.get(name)  # fmt: skip
    if undo is None:
        raise Undecodable(f"Content-Encoding {name!r} is not one that was asked for")
    return undo(body, room)


def _gunzip(body: bytes, room: Room) -> Iterator[bytes]:
    view, at, is_full = memoryview(body), 0, False
    member, members, done, whole = zlib_ng.decompressobj(wbits=31), 0, 0, 0
    while at < len(view) or is_full:
        try:
            plain, at, is_full = _step(member, view, at, room())
        except INVALID:
            if whole:
                raise _Padding(whole) from None
            raise
        done += len(plain)
        if plain:
            yield plain
        if member.eof:
            member, members, whole = zlib_ng.decompressobj(wbits=31), members + 1, done
            if members > GZIP_MEMBERS:
                raise INVALID(f"more than {GZIP_MEMBERS} members")


def _inflate(body: bytes, room: Room) -> Iterator[bytes]:
    view, stream = memoryview(body), zlib_ng.decompressobj()
    try:
        plain, at, is_full = _step(stream, view, 0, room())
    except INVALID:
        # Some servers leave out the zlib header that RFC 9110 (8.4.1.2) asks for.
        stream = zlib_ng.decompressobj(wbits=-15)
        plain, at, is_full = _step(stream, view, 0, room())
    while True:
        if plain:
            yield plain
        if stream.eof or not (at < len(view) or is_full):
            return
        plain, at, is_full = _step(stream, view, at, room())


def _step(stream: Any, view: memoryview, at: int, most: int) -> tuple[bytes, int, bool]:
    """The next bytes of a zlib stream, where it goes on, and whether it may hold back more."""
    piece = view[at : at + SHOWN_BYTES]
    plain = stream.decompress(piece, most)
    # where a stream has ended, `unconsumed_tail` is that of the step before
    left = stream.unused_data if stream.eof else stream.unconsumed_tail
    return plain, at + len(piece) - len(left), len(plain) == most


def _unbrotli(body: bytes, room: Room) -> Iterator[bytes]:
    stream = brotli.Decompressor()
    piece = stream.process(body, output_buffer_limit=room())
    while piece:
        yield piece
        piece = b"" if stream.is_finished() else stream.process(b"", output_buffer_limit=room())


def _unzstd(body: bytes, room: Room) -> Iterator[bytes]:
    context = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    reader = context.stream_reader(body, read_across_frames=True)
    while piece := reader.read(room()):
        yield piece


def _codec(name: str) -> str | None:
    try:
        return CODECS.get(codecs.lookup(name).name)
    except (LookupError, ValueError):
        return None


def _meta_codec(name: str) -> str | None:
    codec = _codec(name)
    # Bytes in which the word `meta` can be read as ASCII are not UTF-16, whatever they claim.
    return "utf-8" if codec and codec.startswith("utf-16") else codec


def _detected(body: bytes) -> str:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        best = from_bytes(body[:DETECT_BYTES]).best()
        return (_codec(best.encoding) if best else None) or "cp1252"
    return "utf-8"
