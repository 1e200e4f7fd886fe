"""Where a file can be cut, so that several workers read it: at zstd frames, blocks, or anywhere.

The places depend on the file alone. They are found by the headers of the compressed form; nothing
is decoded. A dump in one frame, as Pushshift's are, is one part, and so are the other forms.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from crawl import frames
from crawl.dumps import kind_of
from crawl.frames import ZSTD
from crawl.streams import BLOCKS, Part, form_of, open_plain

PART_BYTES = 256 << 20
"""Of the file as it lies there; a part ends at the first place behind it."""
RULE = f"1 {PART_BYTES}"
"""Names what the places depend on, beside the file."""


def places(path: str, size: int) -> list[int]:
    """Where a file of `size` bytes can be cut into parts of about PART_BYTES. Raises BadInput as
    `dumps.kind_of` does."""
    if size <= PART_BYTES:
        return []
    if kind_of(path) not in ("dump", "list"):
        return []
    with open_plain(path) as raw:
        if not raw.seekable():
            return []
        form = form_of(path, raw)
        if form:
            return _cut(ENDS[form](raw, size), size) if form in ENDS else []
    return list(range(PART_BYTES, size, PART_BYTES))


def between(path: str, size: int, places: Sequence[int]) -> list[tuple[Part, int]]:
    """The parts of a file that is cut at these places, each with its bytes."""
    ends = [*places, size]
    starts = [0, *places]
    return [
        (Part(path, start, end if end < size else None), end - start)
        for start, end in zip(starts, ends, strict=True)
    ]


def _cut(ends: Iterable[int], size: int) -> list[int]:
    """Of the ends of frames or blocks, the first behind every PART_BYTES."""
    found: list[int] = []
    for end in ends:
        if end < size and end - (found[-1] if found else 0) >= PART_BYTES:
            found.append(end)
    return found


def _block_ends(raw: IO[bytes], size: int) -> Iterator[int]:
    at = 0
    while at < size and len(head := raw.read(4)) == 4:
        raw.seek(int.from_bytes(head, "little"), 1)
        at = raw.tell()
        yield at


ENDS = {ZSTD: frames.ends, BLOCKS: _block_ends}
"""Of the forms that consist of parts that are decoded alone."""
