"""What the bytes of a body say: its Content-Encoding undone within a bound, its charset, its kind.

Pure functions of bytes and headers. Nothing here trusts a length that a server states.
"""

import codecs
import math
import re
import zlib

import brotli  # type: ignore[import-untyped]
import zstandard
from charset_normalizer import from_bytes

from crawl.schema import PageOutcome

HEAD_BYTES = 1024
"""In which markup shows itself, and (the HTML standard, 13.2.3.2) a meta charset must stand."""
DETECT_BYTES = 32 * 1024
ZSTD_WINDOW = 2**23  # the most that a Content-Encoding may ask for (RFC 9659)
CODED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""How gzip and zstd begin: in a body that does, markup is what could not be packed."""
GZIP_PIECE = 16 * 1024
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


class Undecodable(ValueError):
    """The body is not what its Content-Encoding says."""


class TooLarge(ValueError):
    """The body grows beyond the bound when it is decoded."""


def decode(body: bytes, coding: str | None, limit: int, ratio: float = math.inf) -> bytes:
    """The body with its Content-Encoding (RFC 9110, 8.4) undone, at most `limit` bytes and, beyond
    `FREE_BYTES`, at most `ratio` times as many as were transferred, however many codings there are.

    A body that breaks off gives what it holds. One that was decoded already, as some archives keep
    it, is taken as it is. Raises TooLarge and Undecodable.
    """
    most = int(min(limit, max(FREE_BYTES, len(body) * ratio)))
    for name in _codings(coding):
        body = _undo(body, name, most + 1)
        if len(body) > most:
            raise TooLarge(f"more than {most} bytes")
    return body


def first(body: bytes, coding: str | None, most: int) -> bytes:
    """The first bytes, at most so many, of a decoded body, however long. Raises Undecodable."""
    return _undone(body, coding, most)


def head(body: bytes, coding: str | None) -> bytes:
    """The first bytes of a decoded body; none where it cannot be decoded."""
    try:
        return _undone(body, coding, HEAD_BYTES)
    except Undecodable:
        return b""


def outcome(
    status: int, content_type: str | None, coding: str | None, body: bytes, *, cut: bool
) -> PageOutcome:
    """What an answer that is no redirect makes of its page, from the web or from an archive.
    `cut`: the body is not all that was sent, or was not read at all."""
    if not 200 <= status < 300:
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
    """In the order in which they are to be undone."""
    return [part.strip().lower() for part in reversed((coding or "").split(","))]


def _undone(body: bytes, coding: str | None, most: int) -> bytes:
    for name in _codings(coding):
        body = _undo(body, name, most)
    return body[:most]


def _undo(body: bytes, name: str, most: int) -> bytes:
    undo = {
        "gzip": _gunzip, "x-gzip": _gunzip, "deflate": _inflate, "br": _unbrotli, "zstd": _unzstd
    }.get(name)  # fmt: skip
    if name in ("", "identity"):
        return body
    if undo is None:
        raise Undecodable(f"Content-Encoding {name!r} is not known")
    try:
        return undo(body, most)
    except (zlib.error, brotli.error, zstandard.ZstdError) as error:
        if not body.startswith(CODED) and MARKUP.search(body[:HEAD_BYTES]):
            return body
        raise Undecodable(f"Content-Encoding {name}: {error}") from error


def _gunzip(body: bytes, most: int) -> bytes:
    # Piece by piece: a member copies what it leaves over, so many small ones cost the square.
    plain, view, at = bytearray(), memoryview(body), 0
    members, whole, member = 0, 0, zlib.decompressobj(wbits=31)
    while at < len(view) and len(plain) < most:
        piece = view[at : at + GZIP_PIECE]
        try:
            plain += member.decompress(piece, most - len(plain))
        except zlib.error:
            if whole:  # padding after the last member
                return bytes(plain[:whole])
            raise
        at += len(piece) - len(member.unused_data) - len(member.unconsumed_tail)
        if member.eof:
            members, whole, member = members + 1, len(plain), zlib.decompressobj(wbits=31)
            if members > GZIP_MEMBERS:
                raise zlib.error(f"more than {GZIP_MEMBERS} members")
    return bytes(plain)


def _inflate(body: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, most)
    except zlib.error:
        # Some servers leave out the zlib header that RFC 9110 (8.4.1.2) asks for.
        return zlib.decompressobj(wbits=-15).decompress(body, most)


def _unbrotli(body: bytes, most: int) -> bytes:
    stream, plain = brotli.Decompressor(), bytearray()
    piece = stream.process(body, output_buffer_limit=min(PIECE, most))
    while piece:
        plain += piece
        if len(plain) >= most or stream.is_finished():
            break
        piece = stream.process(b"", output_buffer_limit=min(PIECE, most - len(plain)))
    return bytes(plain)


def _unzstd(body: bytes, most: int) -> bytes:
    context = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    reader, plain = context.stream_reader(body, read_across_frames=True), bytearray()
    while piece := reader.read(min(PIECE, most - len(plain))):
        plain += piece
    return bytes(plain)


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
