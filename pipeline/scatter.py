"""Rows of any number on their way to one file, sorted by key, with row groups for each id range.

What memory holds is sorted; when it is full, it goes to disk as a *run*, with the account of the
reader as it stood then. At the end the runs are merged, a window at a time. A task that is killed
goes on after its last run.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.stage import Account
from pipeline.store import ROW_GROUP_BYTES, read_json, replacing, scattered_writer, write_json
from pipeline.windows import keys_of, order_of, windows

SPILL_BYTES = 96 << 20
"""Arrow bytes held; sorting doubles them for a moment."""
SPILL_READ = 2 << 30
"""Bytes of a leaf read since the last run: what a kill may cost, where few of its rows are kept."""
RUN_ROWS = 8192
"""Rows of a batch in a run: one of each run is held while they are merged."""
WATCHED_ROWS = 1 << 13
"""Rows handed on at once to be counted and hashed, which copies them: few enough for a cache."""
BEAT_S = 1.0
"""Between two reports of how far a task has read."""

Combine = Callable[[pa.Table], pa.Table]
"""Makes rows of all rows of some keys, sorted by key."""
Watch = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


class Scatter:
    """The runs of one task, in a folder of their own beside its file to be."""

    def __init__(self, path: Path, schema: pa.Schema, by: str, shards: int) -> None:
        self._path, self._schema, self._by, self._shards = path, schema, by, shards
        self._folder = runs_of(path)
        self._runs = 0
        self._read = 0
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0

    def resume(self, account: Account) -> None:
        """Take over the runs of a killed predecessor: the account is as it was at the last."""
        while (path := self._run(self._runs)).exists() and path.with_suffix(".json").exists():
            kept = read_json(path.with_suffix(".json"))
            kept["left_out"] = Counter(kept["left_out"])
            vars(account).update(kept)
            self._runs += 1
        self._read = account.bytes_read

    def clear(self) -> None:
        """Remove the runs: of a predecessor, or of a task that is done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, batch: pa.RecordBatch, account: Account) -> None:
        """Take rows, read up to where the account stands."""
        self._held.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= SPILL_BYTES or account.bytes_read - self._read >= SPILL_READ:
            self._spill(account)

    def finish(self, combine: Combine | None, watch: Watch) -> None:
        """Write the file: the rows by key, those of a key in the order they came, combined,
        watched."""
        with ExitStack() as opened, replacing(self._path) as temporary:
            runs = [self._batches(opened, self._run(number)) for number in range(self._runs)]
            held = self._sorted()
            streams = [*runs, iter(held.to_batches(RUN_ROWS))]
            merged = windows(streams, self._by, self._schema) if runs else iter([held])
            with scattered_writer(temporary, self._schema) as write:
                for shard, rows in self._by_range(map(combine or self._by_key, merged)):
                    watched = watch(iter(rows.to_batches(max_chunksize=WATCHED_ROWS)))
                    write(shard, pa.Table.from_batches(watched, self._schema))

    def _by_range(self, tables: Iterator[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
        """Sorted rows, cut at the ends of id ranges and into row groups."""
        held: list[pa.Table] = []
        current = 0
        for table in tables:
            ranges = _ranges_of(table[self._by], self._shards)
            for shard in np.unique(ranges).tolist():
                start, end = np.searchsorted(ranges, [shard, shard + 1])
                if held and (shard != current or _size(held) >= ROW_GROUP_BYTES):
                    yield current, pa.concat_tables(held)
                    held = []
                current = shard
                held.append(table.slice(start, end - start))
        if held:
            yield current, pa.concat_tables(held)

    def _sorted(self) -> pa.Table:
        """The rows held, by key; those of a key in the order they came."""
        table = pa.Table.from_batches(self._held, self._schema)
        self._held, self._bytes = [], 0
        return self._by_key(table)

    def _by_key(self, table: pa.Table) -> pa.Table:
        return table.take(pa.array(order_of(keys_of(table[self._by]))))

    def _spill(self, account: Account) -> None:
        path = self._run(self._runs)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with (
            replacing(path) as temporary,
            pa.ipc.new_file(temporary, self._schema, options=options) as run,
        ):
            run.write_table(self._sorted(), max_chunksize=RUN_ROWS)
        write_json(path.with_suffix(".json"), msgspec.to_builtins(account))
        self._read = account.bytes_read
        self._runs += 1

    def _batches(self, opened: ExitStack, path: Path) -> Iterator[pa.RecordBatch]:
        run = opened.enter_context(pa.ipc.open_file(opened.enter_context(pa.memory_map(str(path)))))
        return (run.get_batch(number) for number in range(run.num_record_batches))

    def _run(self, number: int) -> Path:
        return self._folder / f"{number:05d}.arrow"


def _size(tables: list[pa.Table]) -> int:
    return sum(table.nbytes for table in tables)


def _ranges_of(ids: pa.ChunkedArray, shards: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The id range of every row: `store.range_of` of a column of binary values of one width."""
    keys = keys_of(ids)
    first = np.ascontiguousarray(keys.view(np.uint8).reshape(len(keys), keys.itemsize)[:, :4]).view(
        ">u4"
    )
    return first.ravel().astype(np.int64) * shards >> 32


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
        with suppress(OSError):  # its task has just ended
            text = path.read_text()
            if text.isdigit():
                found[int(path.stem)] = int(text)
    return found
