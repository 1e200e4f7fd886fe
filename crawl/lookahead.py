"""Bytes of an archive that are read and not yet handed on, and where in them a record begins.

Rule: no more is read than what was asked for needs: what follows may be damaged, and reading it
loses what is held.
"""

import re
from collections.abc import Callable

SOUGHT = 64 * 1024
"""Bytes of a record's header that is found behind damage, at most."""
VERSION = re.compile(rb"WARC/[01]\.")
LONGEST = 7
"""Bytes of it."""
HEAD = re.compile(rb"WARC/[01]\.\d{1,2}[ \t]*+\r?\n(?:[^\s:]++:[^\n]*+\n|[ \t][^\n]*+\n)++\r?\n")
"""Nothing in it is looked at twice."""
WITHIN = re.compile(rb"WARC/[01]\.\d{1,2}[ \t]*+\r?\n")
LINE = re.compile(rb"[^\s:]++:")
KIND = b"\nwarc-type:"
"""Of each header one line."""
NEEDED = (b"\nwarc-type:", b"\ncontent-length:")
END = re.compile(rb"\n\r?\n")
LINE_ENDS = b"\r\n"


def cut(head: bytes) -> int | None:
    """Where in a header another one begins, because it was cut there; None where it was not. A URL
    may end as a header begins: then its line is whole, and there is but one kind of record."""
    first, last = head.lower().find(KIND), head.lower().rfind(KIND)
    for found in WITHIN.finditer(head, 1):
        place = found.start()
        line = head[head.rfind(b"\n", 0, place) + 1 : place]
        if not LINE.match(line) or first < place < last:
            return place
    return None


class Ahead:
    """Bytes that are read and not yet handed on."""

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more = more
        self._held, self._at = bytearray(), 0
        self._has_ended = False
        self.has_failed = False
        self.place = 0

    def reset(self, place: int) -> None:
        """What comes next stands at this place."""
        self._held, self._at, self.place = bytearray(), 0, place
        self._has_ended = self.has_failed = False

    def peek(self, size: int) -> bytes:
        self._hold(size)
        return self.held(size)

    def held(self, size: int) -> bytes:
        """So many bytes, fewer where more would have to be read."""
        return bytes(memoryview(self._held)[self._at : self._at + size])

    def take(self, size: int) -> bytes:
        parts = []
        while size and self._hold(1):
            part = self.held(size)
            self._drop(len(part))
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def take_to(self, mark: re.Pattern[bytes], most: int) -> bytes:
        """All up to the end of the mark; empty where that is farther away, or nowhere."""
        searched = 0
        while True:
            found = mark.search(self._held, self._at + searched)
            if found:
                return self.take(found.end() - self._at)
            held = len(self._held) - self._at
            searched = max(0, held - 2)
            if held > most or not self._hold(held + 1):
                return b""

    def give_back(self, size: int) -> None:
        """The last bytes of what `take_to` gave are to come once more."""
        self._drop(-size)

    def skip(self, size: int) -> int:
        left = size
        while left and self._hold(1):
            part = min(left, len(self._held) - self._at)
            self._drop(part)
            left -= part
        return size - left

    def skip_line_ends(self) -> None:
        while self._hold(1):
            rest = self.held(16)
            ends = len(rest) - len(rest.lstrip(LINE_ENDS))
            self._drop(ends)
            if ends < len(rest):
                return

    def skip_to_head(self) -> bool:
        """Passes over what stands before the next header that is well formed; whether there is
        one. Where a file was cut, it stands in the middle of a line."""
        while self._hold(LONGEST):
            found = VERSION.search(self._held, self._at)
            if not found:
                self._drop(len(self._held) - self._at - LONGEST + 1)
                continue
            self._drop(found.start() - self._at)
            if self._has_head():
                return True
            self._drop(LONGEST)
        return False

    def _has_head(self) -> bool:
        """Whether a header stands here that is well formed. No more is read than it has: behind it
        may be the next damage. What begins within it is looked at alone."""
        searched = LONGEST
        while True:
            begin, end = self._at + searched, self._at + SOUGHT
            another = VERSION.search(self._held, begin, end)
            end = another.start() if another else end
            held = len(self._held) - self._at
            if another or END.search(self._held, begin, end) or held >= SOUGHT:
                break
            searched = max(LONGEST, held - LONGEST)
            if not self._hold(held + 1):
                break
        head = HEAD.match(self._held, self._at, end)
        return head is not None and all(one in head.group().lower() for one in NEEDED)

    def _drop(self, size: int) -> None:
        self._at += size
        self.place += size

    def _hold(self, size: int) -> bool:
        """Reads until so many bytes are held; False where there are fewer."""
        while len(self._held) - self._at < size and not self._has_ended:
            try:
                piece = self._more()
            except BaseException:
                self._held, self._at = bytearray(), 0
                self._has_ended = self.has_failed = True
                raise
            del self._held[: self._at]
            self._held += piece
            self._at = 0
            self._has_ended = not piece
        return len(self._held) - self._at >= size
