"""Whole lines of a dump, or of a part of one, in blocks with their places.

Where a block ends depends on the content and on where it begins alone, so a reader that goes on
after a kill sees the blocks that it would have seen. A line belongs to the part in which it begins;
one that begins just where a part ends belongs to that part, as the next cannot know it for whole.
"""

import codecs
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from crawl.streams import DAMAGE, Opened, Part

BLOCK = 16 << 20
"""Bytes of lines handed on at once."""
MAX_LINE_BYTES = 64 << 20
"""No submission has so long a line: Reddit's longest text has 40,000 characters."""


class Block(NamedTuple):
    """Lines of a part, each with its end but perhaps the last of the file."""

    place: int
    """Decoded bytes of the part before them."""
    lines: memoryview
    end: int
    """Decoded bytes of the part up to their end."""
    bytes_read: int
    """Of the part as it lies in the file."""
    whole: bool = True
    """False: the beginning of a line that is too long; the rest of it was passed over."""


def blocks(part: Part, place: int = 0) -> Iterator[Block]:
    """The lines of this part from `place` on, at which one of its blocks begins.

    Raises EOFError where the file ends too early, after every whole line before that; one of
    `streams.DAMAGE` where it is damaged, BadInput where it cannot be opened.
    """
    opened = Opened(part)
    with closing(opened.stream):
        reader = _Reader(opened)
        reader.skip(place)
        if part.start and not place:
            reader.skip_line()
        elif not place and reader.begins_with(codecs.BOM_UTF8):
            reader.skip(len(codecs.BOM_UTF8))
        while block := reader.block():
            yield block


class _Reader:
    """Bytes of a part that are read but not handed on, and where they begin."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._held = b""
        self._place = 0
        self._ended = False
        self._failure: Exception | None = None

    def begins_with(self, mark: bytes) -> bool:
        self._fill(len(mark))
        return self._held.startswith(mark)

    def skip(self, size: int) -> None:
        while size and self._fill(1):
            passed = min(size, len(self._held))
            self._drop(passed)
            size -= passed

    def skip_line(self) -> None:
        while self._fill(1):
            end = self._held.find(b"\n") + 1
            self._drop(end or len(self._held))
            if end:
                return

    def block(self) -> Block | None:
        """The next lines; None where the part has no more. Raises what ended the file too early."""
        self._fill(BLOCK)
        if self._is_past():
            return None
        size = self._whole_lines()
        boundary = self._opened.boundary
        if boundary is not None and self._place + size > boundary:
            # All lines that begin before the boundary, or at it, end at the first end behind it.
            size = self._held.find(b"\n", max(0, boundary - self._place)) + 1 or size
        if size:
            return self._cut(size)
        if len(self._held) >= MAX_LINE_BYTES:
            return self._too_long()
        if self._failure:
            raise self._failure
        return None

    def _is_past(self) -> bool:
        boundary = self._opened.boundary
        return boundary is not None and self._place > boundary

    def _whole_lines(self) -> int:
        """Bytes of the whole lines among the first BLOCK bytes held, at least of one line."""
        size = self._held.rfind(b"\n", 0, BLOCK) + 1
        searched, more = BLOCK, True
        while not size and more and searched < MAX_LINE_BYTES:
            more = self._fill(searched + BLOCK + 1)
            size = self._held.find(b"\n", searched, MAX_LINE_BYTES) + 1
            searched += BLOCK
        if not size and self._ended and not self._failure and len(self._held) < MAX_LINE_BYTES:
            return len(self._held)  # the last line of a file may lack its end
        return size

    def _cut(self, size: int) -> Block:
        lines, place = memoryview(self._held)[:size], self._place
        self._drop(size)
        return Block(place, lines, self._place, self._opened.bytes_read)

    def _too_long(self) -> Block:
        head, place = memoryview(self._held)[:64], self._place
        self.skip_line()
        return Block(place, head, self._place, self._opened.bytes_read, whole=False)

    def _drop(self, size: int) -> None:
        self._held = self._held[size:]
        self._place += size

    def _fill(self, size: int) -> bool:
        """Reads until so many bytes are held; False where the file has fewer."""
        pieces, held = [self._held], len(self._held)
        try:
            while held < size and not self._ended:
                pieces.append(self._opened.read_some())
                held += len(pieces[-1])
                self._ended = not pieces[-1]
        except (EOFError, *DAMAGE) as error:
            self._ended, self._failure = True, error
        self._held = b"".join(pieces)
        return held >= size
