"""The ledger: what the network or an archive gave, appended once and never invalidated.

A segment is `NAME.warc.gz` and `NAME.parquet`. While it is open it is `NAME.warc.gz.open` and the
journal `NAME.ndjson.open`, which its writer holds a lock on; a journal line is appended after the
WARC records that it speaks of. So whatever instant the writer is killed at, the lines whose records
can be read are the truth, and `recover` makes a segment of them: nothing is lost, nothing doubled.
A name begins with the range of ids it covers, so that a reader opens only what overlaps its own.
"""

import contextlib
import datetime
import errno
import fcntl
import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from crawl import claims, warc
from crawl.claims import Held
from crawl.schema import OBSERVATIONS, Observation

SEGMENT_BYTES = 256 * 1024 * 1024
SYNC_S = 2.0
"""Seconds of work that a machine's crash, not a process's, can lose."""
UNSYNCED = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that cannot sync a folder, some network and FUSE mounts among them."""
LOWEST, HIGHEST = b"\x00" * 16, b"\xff" * 16


class Damaged(RuntimeError):
    """A file of the ledger cannot be read, or does not hold what was written to it."""


class Line(msgspec.Struct, frozen=True):
    """One line of a journal: a row, and where the WARC file ended when it was written."""

    end: int
    row: Observation


DECODER = msgspec.json.Decoder(Line)


class Writer:
    """Appends to the ledger, segment after segment. Opens none before something is appended.

    After a write that failed, such as to a full disk, nothing more can be appended. The segment
    stays open as if its writer had been killed: `recover` keeps what was whole of it.
    """

    def __init__(
        self,
        folder: Path,
        low: bytes,
        high: bytes,
        *,
        label: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`low` and `high`: the first and last id that may come. `label`: who writes, part of the
        names. `clock`: seconds, for the intervals between two syncs."""
        self._folder = folder
        self._range = claims.name(low, high, label)
        self._clock = clock
        self._segment: _Segment | None = None
        self._failed: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def archive(
        self,
        target: str,
        moment: datetime.datetime,
        answer: warc.Answer,
        *,
        request: warc.Request | None = None,
        truncated: str | None = None,
    ) -> warc.Place:
        """Writes a response, and the request before it, into the open segment."""
        date = warc.date_text(moment)
        with self._whole_or_not() as segment:
            file = segment.warc
            return warc.write(file, target, date, answer, request=request, truncated=truncated)

    def append(self, row: Observation, place: warc.Place | None = None) -> None:
        """Writes a row; `place` is where its response was archived in this segment."""
        with self._whole_or_not() as segment:
            if place:
                row = msgspec.structs.replace(
                    row,
                    warc_file=f"{segment.name}.warc.gz",
                    warc_offset=place.offset,
                    warc_length=place.length,
                )
            segment.append(row, self._clock())
            full = segment.warc.tell() >= SEGMENT_BYTES
        if full:
            self.close()

    def close(self) -> None:
        """Makes what was appended a whole segment. Raises Damaged where something is missing."""
        if self._segment:
            with self._whole_or_not() as segment:
                segment.finish()
            self._segment = None

    @contextlib.contextmanager
    def _whole_or_not(self) -> Iterator["_Segment"]:
        if self._failed:
            raise self._failed
        segment = self._open()
        try:
            yield segment
        except BaseException as error:
            self._failed, self._segment = error, None
            segment.abandon()
            raise

    def _open(self) -> "_Segment":
        if self._segment is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"{self._range}-{secrets.token_hex(6)}"
            self._segment = _Segment(self._folder, name, self._clock())
        return self._segment


class _Segment:
    def __init__(self, folder: Path, name: str, now: float) -> None:
        self.name = name
        self._folder = folder
        # Locked before it has its name: whoever finds it finds it held.
        hidden = folder / f".{name}.ndjson.tmp"
        self._journal = hidden.open("xb", buffering=0)
        fcntl.flock(self._journal, fcntl.LOCK_EX)
        hidden.rename(_journal(folder, name))
        self.warc: IO[bytes] = _open_warc(folder, name).open("xb")
        self._synced_at = now
        self._rows = 0

    def append(self, row: Observation, now: float) -> None:
        self.warc.flush()
        line = msgspec.json.encode(Line(self.warc.tell(), row)) + b"\n"
        if self._journal.write(line) != len(line):  # a disk that is nearly full takes a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        self._rows += 1
        if now - self._synced_at >= SYNC_S:
            self._sync()
            self._synced_at = now

    def finish(self) -> None:
        self.warc.flush()
        self._sync()
        self.warc.close()
        _finish(self._folder, self.name, appended=self._rows)
        self._journal.close()

    def abandon(self) -> None:
        """Lets go of the files as a killed process would."""
        with contextlib.suppress(OSError):  # what was not flushed belongs to no line
            self.warc.close()
        self._journal.close()

    def _sync(self) -> None:
        # the WARC file first: no line may outlive its records
        os.fsync(self.warc.fileno())
        os.fsync(self._journal.fileno())


def recover(
    folder: Path,
    low: bytes = LOWEST,
    high: bytes = HIGHEST,
    *,
    label: str | None = None,
    wait_s: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Makes whole segments of those that a killed writer left open in a range of ids.

    A lock can outlive a kill for a moment, so a writer's is waited for, `wait_s` seconds in all;
    then Held is raised. Another process that recovers is waited for until it has: it ends by
    itself. `label` restricts this to one writer's segments.
    """
    deadline = clock() + wait_s
    for journal in claims.overlapping(folder, ".ndjson.open", low, high):
        name = journal.name.removesuffix(".ndjson.open")
        if label is not None and claims.label_of(journal) != label:
            continue
        while not _recovered(journal, name):
            if clock() >= deadline:
                raise Held(f"{journal}: another process writes here; end it, then go on")
            sleep(0.05)


def read(folder: Path, low: bytes = LOWEST, high: bytes = HIGHEST) -> pa.Table:
    """All rows of whole segments with an id in the range, both ends included, in no order.

    Raises Damaged, naming the file, where one cannot be read.
    """
    tables = [
        _read(path, [("link_id", ">=", low), ("link_id", "<=", high)])
        for path in claims.overlapping(folder, ".parquet", low, high)
    ]
    return pa.concat_tables([OBSERVATIONS.empty_table(), *tables])


def _read(path: Path, filters: list[tuple[str, str, bytes]]) -> pa.Table:
    try:
        return pq.read_table(path, schema=OBSERVATIONS, filters=filters)
    except (pa.ArrowInvalid, OSError) as error:
        raise Damaged(
            f"{path}: cannot be read: {error}. If it is damaged, restore it from a copy, or delete "
            f"it: what it held is asked for again"
        ) from error


def _journal(folder: Path, name: str) -> Path:
    return folder / f"{name}.ndjson.open"


def _open_warc(folder: Path, name: str) -> Path:
    return folder / f"{name}.warc.gz.open"


def _recovered(journal: Path, name: str) -> bool:
    """Whether the segment is whole now; False while its writer lives."""
    try:
        file = journal.open("r+b")
    except FileNotFoundError:
        return True  # another process was quicker
    with file:
        try:
            # Shared: only a living writer refuses it, for nobody else locks a journal alone.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        turn = journal.with_name(f".{name}.recovery")
        with turn.open("ab") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            if journal.exists():
                _finish(journal.parent, name)
            turn.unlink(missing_ok=True)
    return True


def _finish(folder: Path, name: str, *, appended: int | None = None) -> None:
    """Turns an open segment into a whole one. Each step can be repeated: the journal goes last.

    `appended` is the number of rows where it is known; else each is looked at whether it is whole.
    """
    journal, opened, whole = _journal(folder, name), _open_warc(folder, name), folder / name
    done = whole.with_name(f"{name}.warc.gz")
    source = opened if opened.exists() else done
    lines = list(_lines(journal))
    if appended is None:
        # what follows a record that a power cut left unwritten was not written for certain either
        lines = list(itertools.takewhile(lambda line: _is_whole(source, line), lines))
    elif len(lines) != appended:
        raise Damaged(f"{journal}: holds {len(lines)} of {appended} rows: is the disk full?")
    if lines and source == opened:
        os.truncate(opened, lines[-1].end)
        opened.rename(done)
    if lines:
        _write_parquet(whole.with_name(f"{name}.parquet"), [line.row for line in lines])
    else:
        opened.unlink(missing_ok=True)
    _sync_folder(folder)
    journal.unlink()


def _lines(journal: Path) -> Iterator[Line]:
    """The whole lines of a journal, up to the first that is torn."""
    for line in journal.read_bytes().split(b"\n")[:-1]:
        try:
            yield DECODER.decode(line)
        except msgspec.DecodeError:
            return


def _is_whole(source: Path, line: Line) -> bool:
    if not source.exists() or line.end > source.stat().st_size:
        return False
    row = line.row
    if row.warc_offset is None or row.warc_length is None:
        return True
    try:
        answer = warc.read(source, warc.Place(row.warc_offset, row.warc_length))
    except ValueError:
        return False
    return warc.digest(answer.body) == row.digest


def _write_parquet(path: Path, rows: Iterable[Observation]) -> None:
    plain = sorted((msgspec.structs.asdict(row) for row in rows), key=lambda row: row["link_id"])
    hidden = path.with_name(f".{path.name}.tmp")
    with hidden.open("wb") as file:
        table = pa.Table.from_pylist(plain, OBSERVATIONS)
        pq.write_table(table, file, compression="zstd", row_group_size=16384)
        file.flush()
        os.fsync(file.fileno())
    hidden.rename(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise
    finally:
        os.close(descriptor)
