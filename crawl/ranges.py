"""Reads pieces of many archives at one place: sorted, those that lie near together as one.

An archive that is not there, or that ends too early, is an answer. A server that fails is asked
again, later and later; when it goes on failing, that is our failure, with its words. One that gives
less than it was asked for is asked for the rest.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from fsspec.core import url_to_fs

from crawl.config import CrawlConfig
from crawl.schema import BadInput, Capture

GAP_BYTES = 256 * 1024
"""Read in vain rather than asking once more: at the 5 MB/s that one connection to a distant store
gives, no more than the 50 ms after which an answer begins."""
RANGE_BYTES = 16 << 20
"""Of neighbours read together, at most, unless a single piece is longer."""
TOGETHER = 16
"""Requests in flight at once, at most, of one task."""
WINDOW_BYTES = 32 << 20
"""Asked for at once, at most, unless a single range is longer: it is held in memory."""
ATTEMPTS = 7
MOST_PARTS = 64
"""In which a server may give a range."""
BACK_OFF_S = 1.0
"""Before the second attempt; doubled before each further one: about a minute in all."""
STALLED_S = 60.0
"""Seconds without a byte after which an answer is taken for lost."""

SPAN, GIVEN = re.compile(r"bytes=(\d+)-(\d+)"), re.compile(r"bytes (\d+)-\d+/")
"""What is asked for, and what an answer says that it is."""

Sleep = Callable[[float], None]


class NoParts(Exception):
    """A server sends a file whole."""


class Unreachable(RuntimeError):
    """The archives cannot be read where they are looked for."""


class Piece(NamedTuple):
    """Bytes of an archive, and whatever they are wanted for."""

    file: str
    offset: int
    length: int
    of: Any = None


class Range(NamedTuple):
    """Neighbouring pieces of one archive, read at once: from `start` up to `end`."""

    file: str
    start: int
    end: int
    pieces: tuple[Piece, ...]


def coalesced(pieces: Iterable[Piece]) -> Iterator[Range]:
    """The ranges to be read, by file and offset; between two pieces of one at most `GAP_BYTES` are
    read in vain."""
    held: list[Piece] = []
    end = 0
    for piece in sorted(pieces, key=lambda one: one[:3]):
        reach = piece.offset + piece.length
        if held and (
            piece.file != held[0].file
            or piece.offset - end > GAP_BYTES
            or max(reach, end) - held[0].offset > RANGE_BYTES
        ):
            yield Range(held[0].file, held[0].offset, end, tuple(held))
            held, end = [], 0
        held.append(piece)
        end = max(end, reach)
    if held:
        yield Range(held[0].file, held[0].offset, end, tuple(held))


def windows(ranges: Iterable[Range]) -> Iterator[list[Range]]:
    """Ranges to be asked for at once."""
    held: list[Range] = []
    size = 0
    for one in ranges:
        if held and (len(held) == TOGETHER or size + one.end - one.start > WINDOW_BYTES):
            yield held
            held, size = [], 0
        held.append(one)
        size += one.end - one.start
    if held:
        yield held


class Source:
    """The place below which the archives of an index lie."""

    def __init__(self, config: CrawlConfig, sleep: Sleep = time.sleep) -> None:
        """`sleep`: waits so many seconds, between attempts."""
        self._base = config.archive_base
        self._sleep = sleep
        if "://" not in self._base and not Path(self._base).is_dir():
            raise BadInput(f"crawl.archive_base: {self._base}: is no folder")
        options = _options(config) if self._base.startswith(("http://", "https://")) else {}
        try:
            self._system, self._root = url_to_fs(self._base, **options)
        except (ImportError, ValueError) as error:
            raise BadInput(f"crawl.archive_base: {self._base}: {error}") from error
        self._gives_parts = False

    def read(self, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, bytes | Capture]]:
        """The bytes of each piece, or why there are none: MISSING or CUT_OFF. Raises Unreachable
        where the storage fails and goes on failing, BadInput where it gives no parts of files."""
        for window in windows(coalesced(pieces)):
            # One alone at first: who gives no parts of files sends them whole.
            parts = [window] if self._gives_parts else [window[:1], window[1:]]
            for few in filter(None, parts):
                for one, answer in zip(few, self._answers(few), strict=True):
                    yield from _cut(one, answer)
                self._gives_parts = True

    def _answers(self, ranges: Sequence[Range]) -> list[bytes | Capture]:
        found: dict[int, Capture] = {}
        parts: list[list[bytes]] = [[] for _ in ranges]
        left = dict(enumerate(ranges))
        failed, asked = 0, 0
        while left:
            asked += 1
            answers = self._asked(list(left.values()))
            rest, failures = dict[int, Range](), dict[int, BaseException]()
            for (number, one), answer in zip(left.items(), answers, strict=True):
                if isinstance(answer, BaseException):
                    rest[number], failures[number] = one, answer
                elif isinstance(answer, Capture):
                    found[number] = answer
                else:
                    parts[number].append(answer)
                    if answer and len(answer) < one.end - one.start and asked < MOST_PARTS:
                        # A server may give less than it was asked for (RFC 9110, 15.3.7).
                        rest[number] = one._replace(start=one.start + len(answer))
            left = rest
            failed += bool(failures)
            if failed == ATTEMPTS:
                number, error = next(iter(failures.items()))
                raise self._unreachable(left[number], error, f"asked {failed} times") from error
            if failures:
                self._sleep(BACK_OFF_S * 2 ** (failed - 1))
        # What came before the end of a file was found is no less good.
        return [b"".join(some) if some else found[number] for number, some in enumerate(parts)]

    def _asked(self, ranges: Sequence[Range]) -> list[bytes | Capture | BaseException]:
        """What the storage answers; an exception where another attempt may go better."""
        answers = self._system.cat_ranges(
            [f"{self._root.rstrip('/')}/{one.file}" for one in ranges],
            [one.start for one in ranges],
            [one.end for one in ranges],
            on_error="return",
        )
        return [self._told(*pair) for pair in zip(ranges, answers, strict=True)]

    def _told(self, one: Range, answer: Any) -> bytes | Capture | BaseException:
        is_bytes = isinstance(answer, bytes)
        if isinstance(answer, NoParts) or (is_bytes and len(answer) > one.end - one.start):
            raise BadInput(
                f"crawl.archive_base: {self._base}: gives no parts of files (RFC 9110, 14.2); "
                "fetch the archives and name the folder they are in"
            )
        if is_bytes:
            return bytes(answer)
        status = getattr(answer, "status", None)
        if isinstance(answer, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            return Capture.MISSING
        if status == 410:
            return Capture.MISSING
        if status == 416 or "InvalidRange" in str(answer):
            return Capture.CUT_OFF
        is_final = isinstance(answer, PermissionError) or (
            status is not None and 400 <= status < 500 and status not in (408, 425, 429)
        )
        if is_final or not isinstance(answer, Exception):
            raise self._unreachable(one, answer, "refused") from answer
        return answer

    def _unreachable(self, one: Range, error: BaseException, how: str) -> Unreachable:
        said = str(error).strip() or type(error).__name__
        return Unreachable(
            f"{self._base.rstrip('/')}/{one.file}: bytes {one.start} to {one.end}: {said} ({how}); "
            "what was copied stays: run the same command again when the archives answer, or set "
            "crawl.archive_base"
        )


def _options(config: CrawlConfig) -> dict[str, Any]:
    """How a server is asked: by name, for the bytes as they lie there, and not without end."""
    agent = {"User-Agent": config.user_agent} if config.user_agent else {}
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=config.connect_timeout_s, sock_read=STALLED_S
    )
    headers = {"Accept-Encoding": "identity", **agent}
    return {"client_kwargs": {"headers": headers, "timeout": timeout, "raise_for_status": _look}}


async def _look(answer: aiohttp.ClientResponse) -> None:
    """Raises where the bytes that follow are not those that were asked for: before they are read,
    as they may be a whole archive."""
    asked = SPAN.fullmatch(answer.request_info.headers.get("Range", ""))
    if not asked or answer.status not in (200, 206):
        return
    start, end = map(int, asked.groups())
    is_small = answer.content_length is not None and answer.content_length <= end + 1 - start
    if answer.status == 200 and (start or not is_small):
        answer.close()
        raise NoParts
    told = GIVEN.match(answer.headers.get("Content-Range", ""))
    if answer.status == 206 and told and int(told.group(1)) != start:
        answer.close()
        raise aiohttp.ClientPayloadError(f"other bytes than those asked for: {told.group()}")


def _cut(one: Range, answer: bytes | Capture) -> Iterator[tuple[Piece, bytes | Capture]]:
    """The pieces of a range that was read."""
    for piece in one.pieces:
        if isinstance(answer, Capture):
            # A range that begins in the file can still be refused: by one that ends in it.
            yield piece, answer
        else:
            start = piece.offset - one.start
            found = answer[start : start + piece.length]
            yield piece, found if len(found) == piece.length else Capture.CUT_OFF
