"""Files, their compression undone: the form is told by the first bytes, not the name.

A stream that ends before its compressed form does raises EOFError while it is read, whatever the
form; one that is damaged raises one of `DAMAGE`. Neither is ever taken for a short file.
"""

import bz2
import gzip
import io
import lzma
import zlib
from typing import IO, cast

import fsspec
import zstandard

from crawl.schema import BadInput

CHUNK = 128 * 1024
ZSTD_WINDOW = 2**31
"""Bytes. Reddit's dumps are written with this window; the library's own limit is 2^27."""
DAMAGE = (OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)

GZIP, BZIP2, XZ, ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"  # bytes 1 to 3 of a zstd frame that decoders pass over
NAMED = {"gz": (GZIP,), "bz2": (BZIP2,), "xz": (XZ,), "zst": (ZSTD, SKIPPABLE)}


def open_plain(path: str) -> IO[bytes]:
    """The bytes of a file as they lie there. Raises BadInput where it is missing or empty."""
    try:
        raw = cast(IO[bytes], fsspec.open(path, "rb").open())
        begins = peek(raw, 1)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: cannot be opened: no such file") from error
    except (OSError, ValueError, ImportError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BadInput(f"{path}: cannot be opened: {reason}") from error
    if not begins:
        raw.close()
        raise BadInput(f"{path}: is empty")
    return raw


def open_decoded(path: str) -> IO[bytes]:
    """The content of a zst, xz, bz2, gz or plain file. Raises BadInput as `open_plain` does, and
    where a name promises a compression that the first bytes are not."""
    raw = open_plain(path)
    head = peek(raw, 6)
    form = next((form for form in (GZIP, BZIP2, XZ, ZSTD) if head.startswith(form)), b"")
    if head[1:4] == SKIPPABLE:
        form = ZSTD
    promised = NAMED.get(path.rpartition(".")[2].lower())
    if promised and form not in promised:
        raw.close()
        raise BadInput(f"{path}: does not begin as its name says: damaged, or misnamed")
    return _decoder(raw, form)


def peek(raw: IO[bytes], size: int) -> bytes:
    """The next bytes of a seekable stream, which stays where it is."""
    head = raw.read(size)
    raw.seek(-len(head), io.SEEK_CUR)
    return head


def _decoder(raw: IO[bytes], form: bytes) -> IO[bytes]:
    if form == GZIP:
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if form == BZIP2:
        return bz2.BZ2File(raw)
    if form == XZ:
        return lzma.LZMAFile(raw)
    return io.BufferedReader(Frames(raw), CHUNK) if form == ZSTD else raw


class Frames(io.RawIOBase):
    """The content of one or many zstd frames. The library's own reader takes a frame that breaks
    off for the end of the file; this one raises EOFError."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._context = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._frame = self._context.decompressobj()
        self._inside = False
        self._coded = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        while not self._plain:
            if not self._advance():
                return 0
        target = memoryview(buffer)  # type: ignore[arg-type]
        size = min(len(target), len(self._plain))
        target[:size] = self._plain[:size]
        self._plain = self._plain[size:]
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()

    def _advance(self) -> bool:
        coded = self._coded or self._raw.read(CHUNK)
        if not coded:
            if self._inside:
                raise EOFError("the last zstd frame breaks off")
            return False
        self._plain = memoryview(self._frame.decompress(coded))
        self._inside = not self._frame.eof
        self._coded = b""
        if self._frame.eof:
            self._coded = self._frame.unused_data
            self._frame = self._context.decompressobj()
        return True
