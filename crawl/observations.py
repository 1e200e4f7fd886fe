"""The ledger: what the network or an archive gave, appended once and never invalidated.

It is a folder of segments (`crawl/segments.py`). A name begins with the range of ids it covers, so
that a reader opens only what overlaps its own. A segment is ended when it is large or old, beside
the work that goes on; with a journal folder it is written on the machine's own disk until then.
Rule: nothing waits for a disk that is far away, what is open is synced all the while.
"""

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from crawl import claims, segments, warc
from crawl.capture import NOTHING
from crawl.claims import HIGHEST, LOWEST, Held
from crawl.schema import OBSERVATIONS, Observation
from crawl.segments import Damaged, Segment

__all__ = ["HIGHEST", "LOWEST", "Damaged", "Writer", "read", "recover"]

SEGMENT_BYTES = 256 * 1024 * 1024
SEGMENT_S = 600.0
"""Seconds after which a segment is ended: what a lost machine can cost, where it has a journal and
uploads are quick."""
SEGMENT_ROWS = 1 << 15
"""Rows after which a segment is ended, for the sake of the memory that it takes."""
PATIENCE = 3.5
"""Times that a segment may be too large while the one before is still on its way to its place: with
the records that come before it is looked at again, less than 1 GiB."""
BATCH_ROWS = 1 << 14
SYNC_S = 2.0
"""Seconds of work that a machine's crash, not a process's, can lose."""


def utc_now() -> datetime.datetime:
    """The moment."""
    return datetime.datetime.now(datetime.UTC)


class Writer:
    """Appends to the ledger, segment after segment. Opens none before something is appended.

    Segments are synced in one thread and ended in another. Two at most are on this machine: while
    one is on its way to its place, the next is gone on with, until it is far too large. After a
    write that failed, such as to a full disk, nothing more can be appended: each further call
    raises it once more. The segment stays open as if its writer had been killed: `recover` keeps
    what was whole of it.
    """

    def __init__(
        self,
        folder: Path,
        low: bytes,
        high: bytes,
        *,
        label: str,
        journal: Path | None = None,
        info: Mapping[str, str] = NOTHING,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = utc_now,
    ) -> None:
        """`low` and `high`: the first and last id that may come. `label`: who writes, part of the
        names. `journal`: the folder on this machine's own disk where segments are while they are
        open; None: `folder` itself. `info`: what the crawl says of itself at the head of each WARC
        file. `clock`: seconds, for the age of a segment; `now` tells the date."""
        self._folder, self._home = folder, segments.home(folder, journal)
        self._prefix = claims.name(low, high, label)
        self._info, self._clock, self._now = info, clock, now
        self._segment: Segment | None = None
        self._synced_at, self._synced = 0.0, 0
        self._failed: BaseException | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._syncing: Future[None] | None = None
        self._ending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def archive(self, exchange: warc.Exchange, note: Mapping[str, str] = NOTHING) -> warc.Place:
        """Writes an exchange, with a record of `note`, into the open segment. Returns the place of
        the record that holds its payload, which an earlier exchange may have written."""
        with self._whole_or_not() as segment:
            return segment.archive(exchange, note)

    def append(self, row: Observation, place: warc.Place | None = None) -> None:
        """Writes a row; `place` is where its response was archived just before. Raises ValueError
        for a place in a segment that has been ended since."""
        with self._whole_or_not() as segment:
            if place:
                if place.file != f"{segment.name}.warc.gz":
                    raise ValueError(f"{place.file}: is no longer open: append the row at once")
                row = msgspec.structs.replace(
                    row,
                    warc_file=place.file,
                    warc_offset=place.offset,
                    warc_length=place.length,
                    digest=row.digest or place.digest,
                )
            segment.append(row)
            self._do_what_is_due(segment)

    def tick(self) -> None:
        """Does what is due by the clock, beside: for who has nothing to append for a while."""
        if self._segment:
            with self._whole_or_not() as segment:
                segment.flush()
                self._do_what_is_due(segment)

    def sync(self) -> None:
        """Makes durable what was appended, and ends the segment where it is old."""
        if self._segment:
            with self._whole_or_not() as segment:
                segment.flush()
                segment.sync()
                self._synced_at, self._synced = self._clock(), segment.lines
                self._end_if_due(segment)

    def close(self) -> None:
        """Makes what was appended whole segments. Raises Damaged where something is missing."""
        try:
            if self._segment:
                with self._whole_or_not() as segment:
                    self._end(segment)
            if not self._failed:
                self._wait()
        except BaseException as error:
            self._failed = error
            raise
        finally:
            if self._ending:
                wait([self._ending])
            if self._thread:
                self._thread.shutdown()
                self._thread = None

    @contextlib.contextmanager
    def _whole_or_not(self) -> Iterator[Segment]:
        if self._failed:
            raise self._failed
        try:
            self._look()
            if self._segment is None:
                self._segment = self._opened()
            yield self._segment
        except BaseException as error:
            self._failed = error
            if self._segment:
                self._segment.abandon()
                self._segment = None
            raise

    def _opened(self) -> Segment:
        now = self._clock()
        self._synced_at, self._synced = now, 0
        return Segment(
            self._folder, self._home, self._prefix, moment=self._now(), info=self._info, now=now
        )

    def _do_what_is_due(self, segment: Segment) -> None:
        if self._end_if_due(segment):
            return
        is_late = self._clock() - self._synced_at >= SYNC_S
        if is_late and segment.lines > self._synced and not self._syncing:
            self._synced_at, self._synced = self._clock(), segment.lines
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="ledger")
            self._syncing = self._thread.submit(segment.sync)

    def _end_if_due(self, segment: Segment) -> bool:
        is_due = _is_large(segment, PATIENCE if self._ending else 1.0)
        if not self._ending:
            is_due = is_due or self._clock() - segment.opened_at >= SEGMENT_S
        if is_due:
            self._end(segment)
        return is_due

    def _end(self, segment: Segment) -> None:
        if self._ending:  # the one before
            wait([self._ending])
            self._look()
        synced = [self._syncing] if self._syncing else []
        self._segment = self._syncing = None
        # a thread of its own, which ends with it: there are many writers, and few of them end now
        thread = ThreadPoolExecutor(1, thread_name_prefix="segment")
        self._ending = thread.submit(segment.finish, synced)
        thread.shutdown(wait=False)

    def _look(self) -> None:
        """Raises what went wrong beside."""
        if self._syncing and self._syncing.done():
            done, self._syncing = self._syncing, None
            done.result()
        if self._ending and self._ending.done():
            done, self._ending = self._ending, None
            done.result()

    def _wait(self) -> None:
        """Waits for all that is done beside, and raises what went wrong there."""
        wait([one for one in (self._syncing, self._ending) if one])
        self._look()


def _is_large(segment: Segment, times: float) -> bool:
    """Whether it is that many times as large as one may be."""
    return segment.warc.tell() >= times * SEGMENT_BYTES or segment.rows >= times * SEGMENT_ROWS


def recover(
    folder: Path,
    low: bytes = LOWEST,
    high: bytes = HIGHEST,
    *,
    label: str | None = None,
    whose: Callable[[str], bool] = lambda label: True,
    journal: Path | None = None,
    wait_s: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Makes whole segments of those that a killed writer left open in a range of ids, in the ledger
    or in its folder below `journal`.

    A lock can outlive a kill for a moment, so a writer's is waited for, `wait_s` seconds in all;
    then Held is raised. Another process that recovers is waited for until it has: it ends by
    itself. `label` restricts this to one writer's segments, `whose` to those whose labels fit.
    """
    deadline = clock() + wait_s
    for place in {folder: None, segments.home(folder, journal): None}:
        for path in claims.overlapping(place, segments.OPEN_JOURNAL, low, high):
            if label not in (None, claims.label_of(path)) or not whose(claims.label_of(path)):
                continue
            while not segments.recovered(path, folder):
                if clock() >= deadline:
                    raise Held(f"{path}: another process writes here; end it, then go on")
                sleep(0.05)
        segments.sweep(place)


def salvage(
    folder: Path,
    journal: Path,
    *,
    wait_s: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Makes whole segments of all that killed writers of a ledger left open in its folder below
    `journal`: nobody else can, where that is another machine's disk. A living writer's is left to
    it, after `wait_s` seconds in all for those that are about to die."""
    deadline = clock() + wait_s
    place = segments.home(folder, journal)
    for path in claims.overlapping(place, segments.OPEN_JOURNAL, LOWEST, HIGHEST):
        while not segments.recovered(path, folder) and clock() < deadline:
            sleep(0.05)
    segments.sweep(place)


def read(
    folder: Path,
    low: bytes = LOWEST,
    high: bytes = HIGHEST,
    *,
    whose: Callable[[str], bool] = lambda label: True,
    columns: Sequence[str] = tuple(OBSERVATIONS.names),
) -> pa.Table:
    """All rows of whole segments with an id in the range, both ends included, in no order; of the
    writers whose labels fit `whose`; with `columns`, some of them.

    Raises Damaged, naming the file, where one cannot be read.
    """
    tables = [
        _read(path, [("link_id", ">=", low), ("link_id", "<=", high)], list(columns))
        for path in claims.overlapping(folder, ".parquet", low, high)
        if whose(claims.label_of(path))
    ]
    return pa.concat_tables([OBSERVATIONS.empty_table().select(list(columns)), *tables])


def batches(folder: Path, columns: Sequence[str], *, label: str = "") -> Iterator[pa.RecordBatch]:
    """Some columns of all rows of whole segments, in no order, holding one segment's at a time;
    with `label`, of the writers whose names begin so.

    Raises Damaged, naming the file, where one cannot be read.
    """
    for path in whole(folder):
        if not claims.label_of(path).startswith(label):
            continue
        with _told(path):
            segment = pq.read_table(path, schema=OBSERVATIONS, columns=list(columns))
        yield from segment.to_batches(BATCH_ROWS)


def whole(folder: Path) -> list[Path]:
    """The whole segments by now, by their Parquet files."""
    return claims.overlapping(folder, ".parquet", LOWEST, HIGHEST)


def _read(path: Path, filters: list[tuple[str, str, bytes]], columns: list[str]) -> pa.Table:
    with _told(path):
        return pq.read_table(path, schema=OBSERVATIONS, filters=filters, columns=columns)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise Damaged(
            f"{path}: cannot be read: {error}. If it is damaged, restore it from a copy, or delete "
            f"it: what it held is asked for again"
        ) from error
