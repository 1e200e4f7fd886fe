"""Frames of zstd (RFC 8878, section 3.1): where each ends, by its headers, and what it holds.

Decoded a block at a time, and none stands for more than 128 KiB: memory has a bound, whatever a few
coded bytes stand for. A frame that breaks off is never taken for the end of the file, as the
library's own reader does. A file of web archives may begin with a dictionary that all its frames
need (IIPC, Zstandard Compression for WARC Files 1.0).
"""

import io
from collections.abc import Iterator
from typing import IO

import zstandard

ZSTD = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"
"""Bytes 1 to 3 of a frame that decoders pass over; the first is 0x50 to 0x5f."""
DICTIONARY = b"\x5d\x2a\x4d\x18"
"""What the frame begins with in which a dictionary is: decoders pass over it."""
MAX_DICTIONARY = 16 * 1024 * 1024
"""Bytes. Those of real archives have one MiB at most."""
WINDOW = 2**31
"""Bytes. Reddit's dumps are written with this window; the library's own limit is 2^27."""
CHUNK = 128 * 1024
"""Bytes read at once where nothing else says how many; the most that a block stands for."""
EMPTY = 1024
"""Bytes of headers of blocks that hold nothing, handed on together."""

Piece = tuple[bytes, int | None]
"""Decoded bytes and, where they end a frame, the place in the file at which the next one begins."""


def pieces(raw: IO[bytes]) -> Iterator[Piece]:
    """The content of one or many frames. Raises EOFError where the last breaks off, ZstdError where
    one is damaged."""
    context = zstandard.ZstdDecompressor(max_window_size=WINDOW)
    frame = context.decompressobj()
    leading: bytes | None = b""  # of a frame that may hold the dictionary; None: no more
    for head, size, is_last in _blocks(raw):
        body = raw.read(size)
        is_whole = len(body) == size
        yield frame.decompress(head + body), raw.tell() if is_last and is_whole else None
        if not is_whole:
            raise _broken()
        if leading is not None:
            leading += head + body
            if not leading.startswith(DICTIONARY) or len(leading) > MAX_DICTIONARY:
                leading = None
        if is_last:
            if leading:
                context = _with_dictionary(leading[8:])
            leading = None
            frame = context.decompressobj()


def _with_dictionary(content: bytes) -> zstandard.ZstdDecompressor:
    """What decodes the frames after one that holds a dictionary, itself compressed or not. Frames
    that need none are decoded all the same."""
    if content.startswith(ZSTD):
        plain = bytearray()
        for decoded, _ in pieces(io.BytesIO(content)):
            plain += decoded
            if len(plain) > MAX_DICTIONARY:
                raise zstandard.ZstdError("the dictionary is too large")
        content = bytes(plain)
    dictionary = zstandard.ZstdCompressionDict(content)
    return zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=WINDOW)


def ends(raw: IO[bytes], size: int) -> Iterator[int]:
    """Where each frame of a file of `size` bytes ends; nothing is decoded. Ends itself at a frame
    that breaks off or is none: who reads it says so."""
    try:
        for _, follows, is_last in _blocks(raw):
            raw.seek(follows, 1)
            at = raw.tell()  # not every storage's `seek` says where it is
            if at > size:
                return
            if is_last:
                yield at
    except (EOFError, zstandard.ZstdError):
        return


def _blocks(raw: IO[bytes]) -> Iterator[tuple[bytes, int, bool]]:
    """Of every block its headers, the bytes that follow them, and whether it is a frame's last.
    Who asks for the next one has read what follows, or passed over it."""
    while magic := raw.read(4):
        if magic[1:4] == SKIPPABLE and magic[0] >> 4 == 5:
            yield from _passed_over(magic, raw)
            continue
        if not _may_be_magic(magic):
            raise zstandard.ZstdError("no frame begins where the one before ends")
        descriptor = _exactly(raw, 1)
        flags = descriptor[0]
        is_single, is_checked = flags >> 5 & 1, flags >> 2 & 1
        sizes = (not is_single) + (0, 1, 2, 4)[flags & 3] + (is_single, 2, 4, 8)[flags >> 6]
        head = magic + descriptor + _exactly(raw, sizes)
        is_last = False
        while not is_last:
            block = _exactly(raw, 3)
            value = int.from_bytes(block, "little")
            is_last, is_repeated, size = bool(value & 1), value >> 1 & 3 == 1, value >> 3
            coded = 1 if is_repeated else size
            head += block
            # Blocks that hold nothing go together: a hole in a file reads as a million of them.
            if coded or is_last or len(head) > EMPTY:
                yield head, coded + 4 * (is_checked and is_last), is_last
                head = b""


def _passed_over(magic: bytes, raw: IO[bytes]) -> Iterator[tuple[bytes, int, bool]]:
    """The same of a frame that holds nothing, of up to 4 GiB."""
    length = _exactly(raw, 4)
    left = int.from_bytes(length, "little")
    head = magic + length
    while left > CHUNK:
        yield head, CHUNK, False
        head, left = b"", left - CHUNK
    yield head, left, True


def _may_be_magic(found: bytes) -> bool:
    """Whether a frame may begin so; fewer than 4 bytes are all that the file still has."""
    is_passed_over = found[0] >> 4 == 5 and SKIPPABLE.startswith(found[1:])
    return is_passed_over or ZSTD.startswith(found)


def _exactly(raw: IO[bytes], size: int) -> bytes:
    found = raw.read(size)
    if len(found) < size:
        raise _broken()
    return found


def _broken() -> EOFError:
    return EOFError("the last zstd frame breaks off")
