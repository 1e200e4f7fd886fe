"""Files, their compression undone: the form is told by the first bytes, not the name.

A stream that ends before its compressed form does raises EOFError while it is read, whatever the
form; one that is damaged raises one of `DAMAGE`. Neither is ever taken for a short file.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import fsspec
import zstandard
from fsspec.core import OpenFile

from crawl import frames
from crawl.frames import CHUNK, SKIPPABLE, ZSTD, Piece
from crawl.schema import BadInput

DAMAGE = (
    OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile, tarfile.TarError
)  # fmt: skip

GZIP, BZIP2, XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
BLOCKS = b"zstd blocks"
"""Stands for the form of `.zst_blocks`, which has no first bytes of its own."""
NAMED = {
    "gz": (GZIP,),
    "bz2": (BZIP2,),
    "xz": (XZ,),
    "zst": (ZSTD, SKIPPABLE),
    "zst_blocks": (BLOCKS,),
}


class Part(NamedTuple):
    """A file, or what of it begins between two places where it can be cut (`crawl/parts.py`)."""

    path: str
    start: int = 0
    end: int | None = None


def open_plain(path: str) -> BufferedReader:
    """The bytes of a file as they lie there; not every storage can seek in them. Raises BadInput
    where it is missing or empty."""
    try:
        raw = _open(path)
        begins = raw.peek(1)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: cannot be opened: no such file") from error
    except (ValueError, ImportError, RuntimeError, EOFError, *DAMAGE) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BadInput(f"{path}: cannot be opened: {reason}") from error
    if not begins:
        raw.close()
        raise BadInput(f"{path}: is empty")
    return raw


def open_decoded(path: str) -> IO[bytes]:
    """The content of a zst, xz, bz2, gz, zst_blocks or plain file. Raises BadInput as `open_plain`
    does, and where a name promises a compression that the first bytes are not."""
    return Opened(Part(path)).stream


class Opened:
    """A part of a file, to be read from its beginning."""

    stream: IO[bytes]
    """Its content and, behind it, that of the parts after it."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._raw = open_plain(part.path)
        form = form_of(part.path, self._raw)
        if part.start:
            self._raw.seek(part.start)
        self._pieces = Pieces(_PIECES[form](self._raw), part.end) if form in _PIECES else None
        self.stream = _decoder(self._raw, form, self._pieces)

    def read_some(self) -> bytes:
        """The next bytes of the content, as many as come at once; empty at its end."""
        if self._pieces:
            return self._pieces.some()
        # `read` would throw away what it has already decoded where the file breaks off.
        read = getattr(self.stream, "read1", self.stream.read)
        some: bytes = read(CHUNK)
        return some

    @property
    def bytes_read(self) -> int:
        """Of the part, as it lies in the file."""
        return self._raw.tell() - self._part.start

    @property
    def boundary(self) -> int | None:
        """Bytes of the content that are the part's own; None while that is not known yet."""
        if self._part.end is None:
            return None
        return self._pieces.boundary if self._pieces else self._part.end - self._part.start


def name_of(path: str) -> str:
    """The name of the file itself: of a chain of URIs, the first that names one, as `x.zst` in
    `zip://x.zst::s3://bucket/all.zip`, and the last in `simplecache::s3://bucket/x.zst`."""
    named = (link for link in path.split("::") if "://" in link and not link.endswith("://"))
    return next(named, path)


def form_of(path: str, raw: BufferedReader) -> bytes:
    """The form of the file by its first bytes, at which it stays; empty where it is plain."""
    head = raw.peek(8)
    form = next((form for form in (GZIP, BZIP2, XZ, ZSTD) if head.startswith(form)), b"")
    if head[1:4] == SKIPPABLE:
        form = ZSTD
    elif head[4:8] == ZSTD and not form:
        form = BLOCKS
    promised = NAMED.get(name_of(path).rpartition(".")[2].lower())
    if promised and form not in promised:
        raw.close()
        raise BadInput(f"{path}: does not begin as its name says: damaged, or misnamed")
    return form


def _open(path: str) -> BufferedReader:
    if "://" not in path:
        return Path(path).open("rb")
    return BufferedReader(_Remote(fsspec.open(path, "rb")))


class _Remote(io.RawIOBase):
    """A file at a URI. It holds what the file lies in: fsspec closes an archive under the files
    that are read from it as soon as nobody holds their OpenFile."""

    def __init__(self, opened: OpenFile) -> None:
        self._opened: Any = opened
        self._file: Any = opened.open()
        self._seekable = True
        try:
            self._file.seek(1)  # asks nothing of a storage
            self._file.seek(0)
        except (OSError, ValueError):  # a server that gives no parts says so here alone
            self._seekable = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, short of the end."""
        size = 0
        while some := self._file.read(min(len(buffer) - size, CHUNK)):
            buffer[size : size + len(some)] = some
            size += len(some)
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return self.tell()  # not every storage's `seek` says where it is

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        opened, self._opened, self._file = self._opened, None, None
        try:
            if opened:
                opened.close()
        finally:
            super().close()


def _decoder(raw: IO[bytes], form: bytes, pieces: "Pieces | None") -> IO[bytes]:
    if pieces:
        return BufferedReader(pieces, CHUNK)
    if form == GZIP:
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if form == BZIP2:
        return bz2.BZ2File(raw)
    return lzma.LZMAFile(raw) if form == XZ else raw


class Pieces(io.RawIOBase):
    """A file of the pieces that a decoder yields."""

    def __init__(self, pieces: Iterator[Piece], end: int | None = None) -> None:
        self._pieces, self._end = pieces, end
        self._piece = memoryview(b"")
        self._decoded = 0
        self.boundary: int | None = None

    def readable(self) -> bool:
        return True

    def some(self) -> bytes:
        """The next piece; empty at the end."""
        for decoded, follows in self._pieces:
            self._decoded += len(decoded)
            if follows is not None and self._end is not None and self.boundary is None:
                self.boundary = self._decoded if follows >= self._end else None
            if decoded:
                return decoded
        return b""

    def readinto(self, buffer: object) -> int:
        if not self._piece:
            self._piece = memoryview(self.some())
        target = memoryview(buffer)  # type: ignore[arg-type]
        size = min(len(target), len(self._piece))
        target[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size


def blocks(raw: IO[bytes]) -> Iterator[Piece]:
    """The rows of a `.zst_blocks` file, one a line. A block is a size in 4 bytes and a zstd frame,
    in which stand the number of rows, place and size of each, and their bytes."""
    while size := raw.read(4):
        coded = raw.read(int.from_bytes(size, "little"))
        if len(size) < 4 or len(coded) < int.from_bytes(size, "little"):
            raise EOFError("the last block breaks off")
        frame = zstandard.ZstdDecompressor(max_window_size=frames.WINDOW).decompressobj()
        content = frame.decompress(coded)
        if not frame.eof:
            raise OSError("a block holds no whole zstd frame")
        yield _rows(content), raw.tell()


def _rows(content: bytes) -> bytes:
    count = int.from_bytes(content[:4], "little")
    first = 4 + 8 * count
    places = memoryview(content[4:first]).cast("B")
    if len(places) < 8 * count:
        raise OSError("a block has fewer rows than it says")
    numbers = [int.from_bytes(places[at : at + 4], "little") for at in range(0, 8 * count, 4)]
    spans = zip(numbers[::2], numbers[1::2], strict=True)
    rows = [content[first + place : first + place + size] for place, size in spans]
    if any(len(row) < size for row, size in zip(rows, numbers[1::2], strict=True)):
        raise OSError("a row lies outside its block")
    return b"".join(row + b"\n" for row in rows)


_PIECES = {ZSTD: frames.pieces, BLOCKS: blocks}
