"""Rows on their way to a file of id ranges: through runs on disk, killed at any moment."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import scatter, store
from pipeline.scatter import Beat, Scatter
from pipeline.stage import Account
from pipeline.store import Dataset

SCHEMA = pa.schema([("id", pa.binary(16)), ("n", pa.int64())])
IDS = st.binary(min_size=1, max_size=1).map(lambda one: one * 16)
BATCHES = st.lists(st.lists(IDS, max_size=5), max_size=8)


def batches(some: list[list[bytes]]) -> Iterator[pa.RecordBatch]:
    count = 0
    for ids in some:
        rows = [{"id": one, "n": count + n} for n, one in enumerate(ids)]
        count += len(ids)
        yield pa.RecordBatch.from_pylist(rows, SCHEMA)


def write(path: Path, some: list[list[bytes]], shards: int, kills: tuple[int, ...] = ()) -> None:
    """What a task does, killed before each of these batches."""
    for kill in (*kills, len(some) + 1):
        task, account = Scatter(path, SCHEMA, "id", shards), Account()
        task.resume(account)
        for number, batch in enumerate(batches(some)):
            if number < account.place:
                continue
            if number >= kill:
                break
            account.place, account.bytes_read = number + 1, 10 * number
            account.left_out["seen"] += len(batch)
            task.add(batch, account)
        else:
            assert account.left_out["seen"] == sum(map(len, some))
            task.finish(None, lambda few: few)
            task.clear()
            return


def rows(path: Path, shards: int) -> list[list[tuple[bytes, int]]]:
    dataset = Dataset("toy", "f", path.parent, shards, scattered=True)
    return [
        [(row["id"], row["n"]) for batch in dataset.read(shard) for row in batch.to_pylist()]
        for shard in range(shards)
    ]


@given(BATCHES, st.integers(1, 5), st.integers(1, 200), st.lists(st.integers(0, 8), max_size=3))
def test_memory_and_kills_change_nothing(tmp_path_factory, some, shards, most, kills):
    one, other = (tmp_path_factory.mktemp("scatter") / "00000.parquet" for _ in range(2))
    write(one, some, shards)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scatter, "SPILL_BYTES", most)
        write(other, some, shards, tuple(kills))
    assert rows(one, shards) == rows(other, shards)
    all_rows = [(row["id"], row["n"]) for batch in batches(some) for row in batch.to_pylist()]
    expected = [
        sorted(row for row in all_rows if store.range_of(row[0], shards) == shard)
        for shard in range(shards)
    ]
    assert rows(one, shards) == expected
    assert not list(other.parent.glob("underway/*/*"))


def test_each_range_is_one_row_group_however_many_runs_there_were(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(scatter, "SPILL_BYTES", 1)
    path = tmp_path / "00000.parquet"
    write(path, [[bytes(16), b"\xff" * 16]] * 5, 2)
    assert pq.ParquetFile(path).num_row_groups == 2
    assert store.range_groups(path) == {0: [0], 1: [1]}


def firsts(table: pa.Table) -> pa.Table:
    """The first row of each key."""
    found = {row["id"]: row for row in reversed(table.to_pylist())}
    return pa.Table.from_pylist([found[key] for key in sorted(found)], SCHEMA)


def test_rows_are_combined_key_by_key_before_they_are_counted(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(scatter, "SPILL_BYTES", 1)
    path, seen = tmp_path / "00000.parquet", Counter[int]()

    def watch(some: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in some:
            seen[batch.num_rows] += 1
            yield batch

    task = Scatter(path, SCHEMA, "id", 2)
    for batch in batches([[bytes(16)], [bytes(16)], [b"\xff" * 16]]):
        task.add(batch, Account())
    task.finish(firsts, watch)
    assert rows(path, 2) == [[(bytes(16), 0)], [(b"\xff" * 16, 2)]]
    assert seen == {1: 2}


def test_a_step_without_an_account_begins_anew(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(scatter, "SPILL_BYTES", 1)
    path = tmp_path / "00000.parquet"
    killed = Scatter(path, SCHEMA, "id", 1)
    killed.add(next(batches([[bytes(16)]])), Account())
    task = Scatter(path, SCHEMA, "id", 1)
    task.clear()
    task.add(next(batches([[b"\x01" * 16]])), Account())
    task.finish(None, lambda few: few)
    assert rows(path, 1) == [[(b"\x01" * 16, 0)]]


def test_how_far_a_task_has_read_is_told_now_and_then(tmp_path: Path):
    now = 0.0
    beat = Beat(tmp_path / "00003.parquet", lambda: now)
    for now, place in ((0.0, 5), (0.5, 6), (1.1, 7)):
        beat.tell(Account(bytes_read=place))
        told = scatter.bytes_read(tmp_path)
        assert told == {3: 5 if now < 1 else 7}
    beat.end()
    assert scatter.bytes_read(tmp_path) == {}
    assert scatter.bytes_read(tmp_path / "none") == {}
