"""What hosts asked of us, kept beside the ledger: so that a restart is no way to be impolite.

A range of ids that is being asked for has a file `LOW-HIGH-live.hosts`: that it is there says that
hosts of the range were asked before; its lines, which of them wait for more than the least delay,
and until when. Lines are appended and never changed. Ranges change, so that several files may speak
of a host: what was told last counts, wherever it stands.
"""

import datetime
import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Self

import msgspec

from crawl import claims

EARLIEST = datetime.datetime.min.replace(tzinfo=datetime.UTC)
TICK = datetime.timedelta(microseconds=1)
Now = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """The moment."""
    return datetime.datetime.now(datetime.UTC)


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one host, or the origin of a robots.txt, asked of us."""

    host: str
    delay_s: float = 0.0
    """Its Crawl-delay."""
    rest_s: float = 0.0
    """Seconds that it was left alone at most because it answered slowly, or a little more."""
    until: datetime.datetime | None = None
    """Not to be asked before: its Retry-After."""
    unreachable_since: datetime.datetime | None = None
    """Of an origin: since when its robots.txt cannot be had."""
    told: datetime.datetime | None = None
    """The moment it was; None in files of earlier versions, which are older than any other."""


class Notes:
    """The notes of one range, read and gone on with."""

    def __init__(
        self, folder: Path, low: bytes, high: bytes, *, label: str, now: Now = utc_now
    ) -> None:
        """`low` and `high`: the first and last id. `label`: who writes. `now` tells the date."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes]
        self._now = now
        paths = claims.overlapping(folder, ".hosts", low, high)
        self.begun = bool(paths)
        """Whether hosts of the range were asked before."""
        self.of = _newest(paths)
        path = folder / f"{claims.name(low, high, label)}.hosts"
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = path.open("ab", buffering=0)
        if torn:
            self._file.write(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def delay_s(self, host: str) -> float:
        """The Crawl-delay of a host, where it was told."""
        return self.of[host].delay_s if host in self.of else 0.0

    def full_delay_s(self, host: str) -> float:
        """What a host is left alone for, after whatever it was asked last."""
        note = self.about(host)
        return max(note.delay_s, note.rest_s)

    def rest(self, host: str, rest_s: float) -> None:
        """Keeps how long a host is left alone after a slow answer: the most, rounded up to a power
        of two, so that a host has a few lines at most."""
        if rest_s > self.full_delay_s(host):
            rounded = 2.0 ** math.ceil(math.log2(rest_s))
            self.tell(msgspec.structs.replace(self.about(host), rest_s=rounded))

    def until(self, host: str) -> datetime.datetime | None:
        """Before when a host is not to be asked, where it said so."""
        return self.of[host].until if host in self.of else None

    def about(self, host: str) -> Note:
        """What is known of a host."""
        return self.of.get(host, Note(host=host))

    def unreachable(self, moment: datetime.datetime) -> Iterator[tuple[str, float]]:
        """Origins whose robots.txt could not be had, and for how many seconds."""
        for note in self.of.values():
            if note.unreachable_since:
                yield note.host, (moment - note.unreachable_since).total_seconds()

    def reached(self, origin: str, unreachable_since: datetime.datetime | None) -> None:
        """Keeps since when the robots.txt of an origin cannot be had; None: it was had. What began
        already stays as it is: two clocks never agree on when that was."""
        if bool(unreachable_since) != bool(self.about(origin).unreachable_since):
            self.tell(Note(host=origin, unreachable_since=unreachable_since))

    def tell(self, note: Note) -> None:
        """Keeps a note, if it says something new. It is on its way to the disk when this returns:
        no kill of the process can take it back."""
        known = self.of.get(note.host)
        if known is None or _at(known, None) != _at(note, None):
            moment = self._now()
            if known and known.told:  # a clock that was set back makes nothing older than before
                moment = max(moment, known.told + TICK)
            self.of[note.host] = note = _at(note, moment)
            line = msgspec.json.encode(note) + b"\n"
            if self._file.write(line) != len(line):  # a disk that is nearly full takes a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)


def kept(folder: Path) -> dict[str, Note]:
    """What is known of all hosts that were asked so far, and of origins."""
    return _newest(claims.overlapping(folder, ".hosts", claims.LOWEST, claims.HIGHEST))


def delays(folder: Path) -> dict[str, float]:
    """The Crawl-delays that hosts told all crawls so far."""
    return {host: note.delay_s for host, note in kept(folder).items() if note.delay_s}


def _newest(paths: Iterable[Path]) -> dict[str, Note]:
    """The note of each host that was told last; of those that do not say when, the last there."""
    found: dict[str, Note] = {}
    for path in paths:
        for note in _read(path):
            known = found.setdefault(note.host, note)
            if (note.told or EARLIEST) >= (known.told or EARLIEST):
                found[note.host] = note
    return found


def _at(note: Note, moment: datetime.datetime | None) -> Note:
    return msgspec.structs.replace(note, told=moment)


def _read(path: Path) -> Iterator[Note]:
    """The whole lines; the last may be torn by a kill."""
    for line in path.read_bytes().split(b"\n"):
        try:
            yield msgspec.json.decode(line, type=Note)
        except msgspec.DecodeError:
            continue
