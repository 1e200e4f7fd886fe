"""Where a file can be cut, so that several workers read it: at zstd frames, blocks, or anywhere.

The places depend on the file alone. They are found by the headers of the compressed form; nothing
is decoded. A dump in one frame, as Pushshift's are, is one part, and so are the other forms.
"""

from collections.abc import Sequence
from typing import IO

from crawl import streams
from crawl.dumps import kind_of
from crawl.streams import BLOCKS, ZSTD, Part, form_of, open_plain

PART_BYTES = 256 << 20
"""Of the file as it lies there; a part ends at the first place behind it."""
RULE = f"1 {PART_BYTES}"
"""Names what the places depend on, beside the file."""
MAGIC_SKIPPABLE = range(0x184D2A50, 0x184D2A60)


def places(path: str, size: int) -> list[int]:
    """Where a file of `size` bytes can be cut into parts of about PART_BYTES. Raises BadInput as
    `dumps.kind_of` does."""
    if size <= PART_BYTES:
        return []
    if kind_of(path) not in ("dump", "list"):
        return []
    with open_plain(path) as raw:
        form = form_of(path, raw)
        if form:
            return _frames(raw, size, form)
    return list(range(PART_BYTES, size, PART_BYTES))


def between(path: str, size: int, places: Sequence[int]) -> list[tuple[Part, int]]:
    """The parts of a file that is cut at these places, each with its bytes."""
    ends = [*places, size]
    starts = [0, *places]
    return [
        (Part(path, start, end if end < size else None), end - start)
        for start, end in zip(starts, ends, strict=True)
    ]


def _frames(raw: IO[bytes], size: int, form: bytes) -> list[int]:
    after = {ZSTD: _after_frame, BLOCKS: _after_block}.get(form)
    if not after:
        return []
    found: list[int] = []
    at: int | None = 0
    while at is not None and at < size:
        if at - (found[-1] if found else 0) >= PART_BYTES:
            found.append(at)
        at = after(raw, at)
    return found


def _after_block(raw: IO[bytes], at: int) -> int | None:
    head = _bytes(raw, at, 4)
    return at + 4 + int.from_bytes(head, "little") if len(head) == 4 else None


def _after_frame(raw: IO[bytes], at: int) -> int | None:
    """Where the frame that begins at `at` ends (RFC 8878, section 3.1); None where it breaks off or
    is none: who reads it says so."""
    head = _bytes(raw, at, 18)
    magic = int.from_bytes(head[:4], "little")
    if magic in MAGIC_SKIPPABLE:
        return at + 8 + int.from_bytes(head[4:8], "little") if len(head) >= 8 else None
    if len(head) < 6 or head[:4] != streams.ZSTD:
        return None
    descriptor = head[4]
    single, checked = descriptor >> 5 & 1, descriptor >> 2 & 1
    size_bytes = (single, 2, 4, 8)[descriptor >> 6]
    at += 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + size_bytes
    last = False
    while not last:
        head = _bytes(raw, at, 3)
        if len(head) < 3:
            return None
        value = int.from_bytes(head, "little")
        last, kind, size = bool(value & 1), value >> 1 & 3, value >> 3
        at += 3 + (1 if kind == 1 else size)  # a block of one byte that is repeated
    return at + 4 * checked


def _bytes(raw: IO[bytes], at: int, size: int) -> bytes:
    raw.seek(at)
    return raw.read(size)
