"""Rows of any number on their way to one file with a row group for each id range that has any.

What memory holds is sorted by range; when it is full, it goes to disk as a *run*, with the account
of the reader as it stood then. At the end the runs are merged, range by range. A task that is
killed goes on after its last run.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.stage import Account
from pipeline.store import range_groups, read_json, replacing, scattered_writer, write_json

SPILL_BYTES = 96 << 20
"""Arrow bytes held; sorting doubles them for a moment."""
BEAT_S = 1.0
"""Between two reports of how far a task has read."""

Combine = Callable[[pa.Table], pa.Table]
Watch = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


class Scatter:
    """The runs of one task, in a folder of their own beside its file to be."""

    def __init__(self, path: Path, schema: pa.Schema, by: str, shards: int) -> None:
        self._path, self._schema, self._by, self._shards = path, schema, by, shards
        self._folder = runs_of(path)
        self._runs = 0
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0

    def resume(self, account: Account) -> None:
        """Take over the runs of a killed predecessor: the account is as it was at the last."""
        while (path := self._run(self._runs).with_suffix(".json")).exists():
            kept = read_json(path)
            kept["left_out"] = Counter(kept["left_out"])
            vars(account).update(kept)
            self._runs += 1

    def restart(self) -> None:
        """Forget the runs of a predecessor."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, batch: pa.RecordBatch, account: Account) -> None:
        """Take rows, read up to where the account stands."""
        self._held.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= SPILL_BYTES:
            self._spill(account)

    def finish(self, combine: Combine, watch: Watch) -> None:
        """Write the file: of each range the rows in the order they came, combined, watched."""
        held, ends = self._sorted()
        runs = [pq.ParquetFile(self._run(number), memory_map=True) for number in range(self._runs)]
        groups = [range_groups(self._run(number)) for number in range(self._runs)]

        def rows(shard: int) -> pa.Table:
            parts = [
                run.read_row_group(of[shard], use_threads=False)
                for run, of in zip(runs, groups, strict=True)
                if shard in of
            ]
            parts.append(held.slice(ends[shard], ends[shard + 1] - ends[shard]))
            return pa.concat_tables(parts)

        with replacing(self._path) as temporary, scattered_writer(temporary, self._schema) as write:
            for shard in self._ranges(groups, ends):
                table = combine(rows(shard))
                write(shard, pa.Table.from_batches(watch(iter(table.to_batches())), self._schema))
        self.restart()

    def _ranges(self, groups: list[dict[int, int]], ends: Any) -> list[int]:
        here = np.flatnonzero(np.diff(ends)).tolist()
        return sorted({*here, *(shard for group in groups for shard in group)})

    def _sorted(self) -> tuple[pa.Table, Any]:
        """The rows held, by range, and where the rows of each range begin and end."""
        table = pa.Table.from_batches(self._held, self._schema)
        self._held, self._bytes = [], 0
        ranges = _ranges_of(table[self._by], self._shards)
        table = table.take(pa.array(np.argsort(ranges, kind="stable")))
        counts = np.bincount(ranges, minlength=self._shards)
        return table, np.concatenate([[0], np.cumsum(counts)])

    def _spill(self, account: Account) -> None:
        table, ends = self._sorted()
        path = self._run(self._runs)
        with replacing(path) as temporary, scattered_writer(temporary, self._schema) as write:
            for shard in np.flatnonzero(np.diff(ends)).tolist():
                write(shard, table.slice(ends[shard], ends[shard + 1] - ends[shard]))
        write_json(path.with_suffix(".json"), msgspec.to_builtins(account))
        self._runs += 1

    def _run(self, number: int) -> Path:
        return self._folder / f"{number:05d}.parquet"


def _ranges_of(ids: pa.ChunkedArray, shards: int) -> Any:
    """The id range of every row: `store.range_of` of a column of binary values of one width."""
    width = ids.type.byte_width
    column = pa.concat_arrays(ids.chunks) if ids.num_chunks else pa.array([], ids.type)
    raw = np.frombuffer(column.buffers()[1], np.uint8, len(column) * width, column.offset * width)
    first = np.ascontiguousarray(raw.reshape(-1, width)[:, :4]).view(">u4").ravel()
    return first.astype(np.int64) * shards >> 32


def underway(folder: Path) -> Path:
    """Where tasks that are not done keep what they have."""
    return folder / "underway"


def runs_of(path: Path) -> Path:
    """The folder of the runs of the task that will write `path`."""
    return underway(path.parent) / path.stem


class Beat:
    """Tells, now and then, how many bytes of its leaf a task has read."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = underway(path.parent) / f"{path.stem}.bytes"
        self._clock = clock
        self._last = -BEAT_S

    def tell(self, account: Account) -> None:
        """Write it down, unless it was just done. Not synced: it is news, not a record."""
        now = self._clock()
        if now - self._last >= BEAT_S:
            self._last = now
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(str(account.bytes_read))

    def end(self) -> None:
        """The task is done: its report says the rest."""
        self._path.unlink(missing_ok=True)


def bytes_read(folder: Path) -> dict[int, int]:
    """How many bytes of its leaf each task that is under way has read, by its number."""
    found = {}
    for path in underway(folder).glob("*.bytes"):
        text = path.read_text() if path.exists() else ""
        if text.isdigit():
            found[int(path.stem)] = int(text)
    return found
