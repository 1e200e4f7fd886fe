"""Whole lines of a dump, or of a part of one, in blocks with their places.

Where a block ends depends on the content and on where it begins alone, so a reader that goes on
after a kill sees the blocks that it would have seen. A line belongs to the part in which it begins;
one that begins just where a part ends belongs to that part, as the next cannot know it for whole.
"""

import codecs
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from crawl.frames import CHUNK
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
    """Good until the next block is asked for: the reader's own buffer."""
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
    """Bytes of a part that are read but not handed on, in one buffer, and where they begin."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._buffer = bytearray(_usual())
        self._start = self._stop = 0
        self._place = 0
        self._ended = False
        self._failure: Exception | None = None

    def begins_with(self, mark: bytes) -> bool:
        self._fill(len(mark))
        return self._buffer.startswith(mark, self._start, self._stop)

    def skip(self, size: int) -> None:
        while size and self._fill(1):
            passed = min(size, self._held)
            self._drop(passed)
            size -= passed

    def skip_line(self) -> None:
        while self._fill(1):
            end = self._line_end()
            self._drop(end or self._held)
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
            size = self._line_end(max(0, boundary - self._place)) or size
        if size:
            return self._cut(size)
        if self._held >= MAX_LINE_BYTES:
            return self._too_long()
        if self._failure:
            raise self._failure
        return None

    @property
    def _held(self) -> int:
        return self._stop - self._start

    def _line_end(self, first: int = 0, last: int | None = None) -> int:
        """How many of the bytes held there are up to the first end of a line from the byte `first`
        to the byte `last`; 0 where none ends there."""
        stop = self._stop if last is None else min(self._stop, self._start + last)
        found = self._buffer.find(b"\n", self._start + first, stop)
        return found + 1 - self._start if found >= 0 else 0

    def _is_past(self) -> bool:
        boundary = self._opened.boundary
        return boundary is not None and self._place > boundary

    def _whole_lines(self) -> int:
        """Bytes of the whole lines among the first BLOCK bytes held, at least of one line."""
        last = min(self._stop, self._start + BLOCK)
        size = max(0, self._buffer.rfind(b"\n", self._start, last) + 1 - self._start)
        searched, more = BLOCK, True
        while not size and more and searched < MAX_LINE_BYTES:
            more = self._fill(searched + BLOCK + 1)
            size = self._line_end(searched, MAX_LINE_BYTES)
            searched += BLOCK
        if not size and self._ended and not self._failure and self._held < MAX_LINE_BYTES:
            return self._held  # the last line of a file may lack its end
        return size

    def _cut(self, size: int) -> Block:
        lines = memoryview(self._buffer)[self._start : self._start + size].toreadonly()
        place = self._place
        self._drop(size)
        return Block(place, lines, self._place, self._opened.bytes_read)

    def _too_long(self) -> Block:
        head = bytes(self._buffer[self._start : self._start + 64])
        place = self._place
        self.skip_line()
        return Block(place, memoryview(head), self._place, self._opened.bytes_read, whole=False)

    def _drop(self, size: int) -> None:
        self._start += size
        self._place += size

    def _fill(self, size: int) -> bool:
        """Reads until so many bytes are held; False where the file has fewer."""
        try:
            while self._held < size and not self._ended:
                piece = self._opened.read_some()
                self._take(piece)
                self._ended = not piece
        except (EOFError, *DAMAGE) as error:
            self._ended, self._failure = True, error
        return self._held >= size

    def _take(self, piece: bytes) -> None:
        if self._stop + len(piece) > len(self._buffer):
            self._make_room(len(piece))
        memoryview(self._buffer)[self._stop : self._stop + len(piece)] = piece
        self._stop += len(piece)

    def _make_room(self, size: int) -> None:
        """Move what is held to the beginning: of the buffer, or of one of the size needed."""
        held = memoryview(self._buffer)[self._start : self._stop]
        needed = len(held) + size
        usual = _usual()
        if needed > len(self._buffer) or needed <= usual < len(self._buffer):
            self._buffer = bytearray(usual if needed <= usual else needed + BLOCK)
        memoryview(self._buffer)[: len(held)] = held
        self._start, self._stop = 0, len(held)


def _usual() -> int:
    """Bytes of a buffer that has room for a block and for a piece read too much."""
    return BLOCK + CHUNK
