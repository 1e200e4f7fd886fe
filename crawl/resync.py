"""The bytes of a web archive, decoded, and where its records go on behind damage.

Rule: memory has a bound whatever a file holds, and so has the time for each of its bytes: what
damage took with it is gone over again, but not again and again. In files that cannot be sought in,
what a damaged record took with it is lost. A zst file ends at damage: without checksums, frames
behind it may say anything.
"""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from crawl import lookahead, streams
from crawl.frames import CHUNK
from crawl.lookahead import Ahead

MAX_HEADER_BYTES = 1 << 20
"""Of a foreign record's own header; FastWARC's default of 32 KiB ends a whole file at one more."""
SOME = 16 * 1024
"""Bytes that are asked for at once of what another decodes."""
FED, PIECE = 8 * 1024, 1 << 20
"""Bytes that are decoded at once, and what they stand for, at most: where one is damaged, all of
them are lost."""
TAIL = 64
"""The last bytes of a member are not handed on before its checksum is seen: more than the two line
ends behind a record, so that none is handed on whole out of a member that ends with a wrong one.
Out of one whose end itself is not told, it is: all of it was decoded before."""
CHECKED = 2048
"""Bytes from which is told whether a record begins there: more than a name and a table of codes."""
AGAIN, AT_LEAST = 4, 64 << 20
"""How often all bytes so far may be gone over again, on average, and how many at least."""

MARK = b"WARC/"
MAGIC = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")
BEHIND = re.compile(rb"\r?\n\r?\n|[\r\n]*(?:WARC/|(?:W(?:A(?:RC?)?)?)?\Z)")
"""What stands behind a whole record, as far as it is held; some crawlers write no line ends."""


class Torn(EOFError):
    """No whole record stands here."""


class Source(Protocol):
    """Where the bytes come from."""

    may_look_ahead: bool
    """Whether what follows a record can be read without the risk of losing the record itself: it
    may be damaged."""

    def some(self) -> bytes: ...
    def start_of(self, place: int) -> int | None: ...
    def back(self, place: int, now: int) -> bool: ...
    def next_place(self) -> int | None: ...


class Archive:
    """The records of an archive, one after another: `head`, perhaps `block`, and `end`; after an
    exception `recover`."""

    start: int | None = None
    """Where in the file the record begins, if it can be read from there on."""
    has_begun = False
    """Whether there was any header of a record."""

    def __init__(self, source: Source, *, may_go_on: bool = True) -> None:
        self._source, self._may_go_on = source, may_go_on
        self._text = Ahead(source.some)
        self._behind = 0  # the header of the record that is read

    def head(self) -> bytes:
        """The header of the next record; empty at the end. Raises Torn where none begins."""
        self._text.skip_line_ends()
        self._behind = self._text.place
        self.start = self._source.start_of(self._behind)
        if not self._text.peek(1):
            return b""
        if self._text.peek(len(MARK)) != MARK:
            raise Torn("no record begins where the one before ends")
        head = self._text.take_to(lookahead.END, MAX_HEADER_BYTES)
        another = lookahead.cut(head)
        if another:
            self._text.give_back(len(head) - another)
        self._behind = self._text.place
        if another or not head:
            raise Torn("the header of a record has no end")
        self.has_begun = True
        return head

    def block(self, size: int) -> bytes:
        """The first bytes of the record's block, fewer at the end of the file."""
        return self._text.take(size)

    def end(self, size: int) -> None:
        """Passes over what is left of a block of this size. Raises Torn where it is not there, or
        what follows says that the record was not so long."""
        left = self._behind + size - self._text.place
        is_whole = self._text.skip(left) == left
        look = self._text.peek if self._source.may_look_ahead else self._text.held
        if is_whole and BEHIND.match(look(16)):
            return
        raise Torn("a record is not as long as it says")

    def recover(self) -> bool:
        """Whether there is another record behind the damage, at which to go on."""
        text = self._text
        if not self._may_go_on:
            return False
        try:
            if not text.has_failed:
                if text.place != self._behind and self._source.back(self._behind, text.place):
                    text.reset(self._behind)
                return text.skip_to_head()
        except (EOFError, *streams.DAMAGE) as error:
            _raise_if_its_own(error)
        try:
            place = self._source.next_place()
        except (EOFError, *streams.DAMAGE) as error:
            _raise_if_its_own(error)
            return False
        if place is not None:
            text.reset(place)
        return place is not None


@contextmanager
def opened(path: str, start: int = 0) -> Iterator[Archive]:
    """The archive at this path, gz, zst or plain, from one of its records on. Raises BadInput where
    it cannot be opened."""
    name = streams.name_of(path).lower()
    if name.endswith((".zst", ".zstd")):
        with streams.open_decoded(path) as stream:
            yield Archive(_Plain(stream, can_seek=False), may_go_on=False)
        return
    with streams.open_plain(path) as raw:
        begins = raw.peek(len(MARK))
        is_packed = begins.startswith(streams.GZIP)
        if start:
            raw.seek(start)
        if is_packed or (name.endswith(".gz") and not begins.startswith(MARK)):
            yield Archive(_Members(raw, start))
        else:
            yield Archive(_Plain(raw, start, can_seek=raw.seekable()))


def _raise_if_its_own(error: BaseException) -> None:
    """An error of the disk or the network is no damage."""
    if isinstance(error, OSError) and error.errno:
        raise error


class _Patience:
    """How much may still be gone over again."""

    def __init__(self) -> None:
        self._spent = 0

    def has(self, size: int, place: int) -> bool:
        """Whether so many bytes before a place may be; if so, they are counted."""
        if self._spent + size > AGAIN * place + AT_LEAST:
            return False
        self._spent += size
        return True


class _Plain:
    """An archive that is not compressed, or that another decodes."""

    def __init__(self, raw: IO[bytes], start: int = 0, *, can_seek: bool) -> None:
        self.may_look_ahead = can_seek  # what is decoded cannot be sought in
        self._raw, self._start, self._can_seek = raw, start, can_seek
        self._patience = _Patience()

    def some(self) -> bytes:
        return self._raw.read(SOME)

    def start_of(self, place: int) -> int | None:
        return self._start + place if self._can_seek else None

    def back(self, place: int, now: int) -> bool:
        """Back to behind the header of a damaged record: who knows how long it is."""
        again = now - place + SOME  # with what is read ahead
        if not self._can_seek or not self._patience.has(again, now):
            return False
        self._raw.seek(self._start + place)
        return True

    def next_place(self) -> int | None:
        return None


class _Members:
    """An archive of gzip members, of which each may hold one record or more."""

    may_look_ahead = False

    def __init__(self, raw: io.BufferedReader, start: int = 0) -> None:
        self._raw = raw
        self._chunk, self._at, self._end = b"", 0, start
        self._inflater: zlib._Decompress | None = None
        self._begin = start  # of the member that is read
        self._held = b""
        self._given = 0
        self._first = (0, start)  # its first decoded byte, and its own first
        self._is_fresh = False
        self._patience = _Patience()

    def some(self) -> bytes:
        while (piece := self._inflated()) is not None:
            held = self._held + piece
            size = len(held) - (TAIL if self._inflater else 0)
            ready = held[: max(0, size)]
            self._held = held[len(ready) :]
            if ready:
                if self._is_fresh:
                    self._first, self._is_fresh = (self._given, self._begin), False
                self._given += len(ready)
                return ready
        return b""

    def start_of(self, place: int) -> int | None:
        is_first = self._first[0] == place and self._raw.seekable()
        return self._first[1] if is_first else None

    def back(self, place: int, now: int) -> bool:
        return False  # what is decoded and whole is as it was written

    def next_place(self) -> int | None:
        """Behind a damaged member: back to its beginning, and on to the next one that begins with a
        record. It may have swallowed some, if it was cut."""
        self._inflater, self._held = None, b""
        self._return(self._begin + 1)
        return self._given if self._find() else None

    def _inflated(self) -> bytes | None:
        """The next decoded bytes of one member; None at the end of the file."""
        if self._at == len(self._chunk) and not self._read():
            if self._inflater:
                raise EOFError("the last gzip member breaks off")
            return None
        if not self._inflater:
            self._inflater = zlib.decompressobj(wbits=31)
            self._begin = self._end - len(self._chunk) + self._at
            self._is_fresh = True
        fed = self._chunk[self._at : self._at + FED]
        piece = self._inflater.decompress(fed, PIECE)
        is_done = self._inflater.eof
        rest = self._inflater.unused_data if is_done else self._inflater.unconsumed_tail
        self._at += len(fed) - len(rest)
        self._inflater = None if is_done else self._inflater
        return piece

    def _read(self) -> bool:
        self._chunk, self._at = self._raw.read(CHUNK), 0
        self._end += len(self._chunk)
        return bool(self._chunk)

    def _return(self, place: int) -> None:
        """To a place before, if that may be."""
        begins = self._end - len(self._chunk)
        reached = begins + min(len(self._chunk), self._at + FED)
        again = reached - place + (CHUNK if place < begins else 0)
        if not self._patience.has(again, reached):
            self._at = reached - begins
        elif place >= begins or not self._raw.seekable():
            self._at = max(0, place - begins)
        else:
            self._raw.seek(place)
            self._chunk, self._at, self._end = b"", 0, place

    def _find(self) -> bool:
        """Whether another member begins with a record; if so, it is read next."""
        while True:
            found = MAGIC.search(self._chunk, self._at)
            self._at = found.start() if found else max(self._at, len(self._chunk) - 3)
            if not found or len(self._chunk) - self._at < CHECKED:
                rest = self._chunk[self._at :]
                if self._read():
                    self._chunk = rest + self._chunk
                    continue
                self._chunk = rest
                if not found:
                    self._at = len(rest)
                    return False
            if _begins_record(self._chunk[self._at : self._at + CHECKED]):
                return True
            self._at += 1


def _begins_record(packed: bytes) -> bool:
    try:
        plain = zlib.decompressobj(wbits=31).decompress(packed, 16)
    except zlib.error:
        return False
    return bool(lookahead.VERSION.match(plain))
