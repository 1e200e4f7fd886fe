"""Files that are whole or absent, and datasets read by id range."""

import errno
import os
import stat
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import store
from pipeline.failures import Damaged
from pipeline.manifest import Report
from pipeline.scatter import Scatter
from pipeline.stage import Account
from pipeline.store import Dataset

SCHEMA = pa.schema([("id", pa.binary(16)), ("n", pa.int64())])
IDS = st.binary(min_size=16, max_size=16)


def batch(ids: list[bytes]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": i, "n": n} for n, i in enumerate(ids)], SCHEMA)


def write_scattered(path: Path, batches, shards: int) -> None:
    """Rows of a task as the machinery writes them."""
    scatter = Scatter(path, SCHEMA, "id", shards)
    for few in batches:
        scatter.add(few, Account())
    scatter.finish(None, lambda few: few)


def ids_of(batches) -> list[bytes]:
    return [i for b in batches for i in b["id"].to_pylist()]


@given(IDS, st.integers(1, 70000))
def test_every_id_has_one_shard_and_ranges_rise_with_ids(identifier: bytes, shards: int):
    shard = store.range_of(identifier, shards)
    assert 0 <= shard < shards
    assert store.range_of(b"\xff" * 16, shards) == shards - 1
    assert store.range_of(bytes(16), shards) == 0


@given(IDS, IDS, st.integers(1, 500))
def test_ranges_keep_the_order_of_ids(a: bytes, b: bytes, shards: int):
    low, high = sorted((a, b))
    assert store.range_of(low, shards) <= store.range_of(high, shards)


@given(st.lists(IDS, max_size=30, unique=True), st.integers(1, 9))
def test_scattered_rows_are_found_by_range_in_order(tmp_path_factory, ids, shards):
    folder = tmp_path_factory.mktemp("scattered")
    for number, few in enumerate((ids[::2], ids[1::2])):
        path = folder / f"{number:05d}.parquet"
        write_scattered(path, [batch(few)], shards)
    dataset = Dataset("toy", "f", folder, shards, scattered=True)
    for shard in range(shards):
        expected = sorted(i for i in ids if store.range_of(i, shards) == shard)
        assert ids_of(dataset.read(shard)) == expected
    assert sorted(ids_of(dataset.all())) == sorted(ids)


@given(st.lists(IDS, min_size=1, max_size=30, unique=True), st.data())
def test_rows_are_looked_up_by_id(tmp_path_factory, ids, data):
    folder, shards = tmp_path_factory.mktemp("ranges"), 4
    for shard in range(shards):
        few = sorted(i for i in ids if store.range_of(i, shards) == shard)
        store.write_rows(folder / f"{shard:05d}.parquet", iter([batch(few)]), SCHEMA)
    wanted = data.draw(st.lists(st.sampled_from(ids)))
    found = Dataset("toy", "f", folder, shards).rows([*wanted, bytes(16)], ["id"])
    assert found["id"].to_pylist() == sorted({*wanted, bytes(16)} & set(ids))


def scattered(path: Path) -> None:
    write_scattered(path, [batch([bytes(16)])], 1)


def ranged(path: Path) -> None:
    store.write_rows(path, iter([batch([bytes(16)])]), SCHEMA)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2])


def garbled(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:44] = b"\xa5" * 40
    path.write_bytes(content)


READ = {
    "read": lambda dataset: list(dataset.read(0)),
    "all": lambda dataset: list(dataset.all()),
    "rows": lambda dataset: dataset.rows([bytes(16)], ["n"]),
}


@pytest.mark.parametrize("damage", [cut, garbled])
@pytest.mark.parametrize("write", [ranged, scattered])
@pytest.mark.parametrize("read", READ)
def test_a_damaged_parquet_file_is_named(tmp_path: Path, write, damage, read: str):
    path = tmp_path / "00000.parquet"
    write(path)
    dataset = Dataset("toy", "f", tmp_path, 1, scattered=write is scattered)
    READ[read](dataset)
    damage(path)
    with pytest.raises(Damaged) as raised:
        READ[read](dataset)
    assert str(raised.value).startswith(f"{path}: is damaged (")
    assert str(raised.value).endswith(f"; remove {tmp_path} and run `webtext rebuild`")


@pytest.mark.parametrize("read", ["read", "rows"])
def test_a_parquet_file_that_is_gone_is_named(tmp_path: Path, read: str):
    with pytest.raises(Damaged, match=f"{tmp_path}/00000.parquet: is gone; remove {tmp_path} and"):
        READ[read](Dataset("toy", "f", tmp_path, 1))


def test_a_scattered_file_without_its_ranges_is_named(tmp_path: Path):
    ranged(tmp_path / "00000.parquet")
    with pytest.raises(Damaged, match=r"00000\.parquet: is damaged"):
        list(Dataset("toy", "f", tmp_path, 1, scattered=True).read(0))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"index": "one"}', b"\xff", b'{"i\xff": 1}']
)
def test_a_document_of_another_shape_is_named_with_what_to_do(tmp_path: Path, content: bytes):
    path = tmp_path / "00000.json"
    path.write_bytes(content)
    with pytest.raises(Damaged) as raised:
        store.read_as(path, Report)
    assert str(raised.value).startswith(f"{path}: is damaged (")
    assert str(raised.value).endswith("; remove it and run `webtext rebuild`")
    path.unlink()
    with pytest.raises(Damaged, match=r"is gone; run `webtext rebuild`$"):
        store.read_as(path, Report)


def test_rows_of_any_number_come_back_in_order(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(store, "ROW_GROUP_BYTES", 1000)
    ids = [number.to_bytes(16, "big") for number in range(500)]
    batches = iter([batch(ids[start : start + 50]) for start in range(0, 500, 50)])
    store.write_rows(tmp_path / "00000.parquet", batches, SCHEMA)
    assert ids_of(Dataset("toy", "f", tmp_path, 1).read(0)) == ids


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path):
    path = tmp_path / "file"
    store.write_bytes(path, b"old")

    def broken():
        yield batch([bytes(16)])
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        store.write_rows(path, broken(), SCHEMA)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "code, ends_well", [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)]
)
def test_a_folder_that_no_one_can_sync_stops_no_write(
    tmp_path: Path, monkeypatch, code: int, ends_well: bool
):
    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", sync)
    with nullcontext() if ends_well else pytest.raises(OSError):
        store.write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_two_machines_that_make_the_same_file_write_two(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 17)
    path = tmp_path / "file"
    with store.replacing(path) as one, store.replacing(path) as other:
        one.write_bytes(b"whole")
        other.write_bytes(b"half")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_synced_is_never_put_in_place(tmp_path: Path, monkeypatch):
    def sync(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError):
        store.write_bytes(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of one megabyte."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mounted)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("this user may not mount a small disk")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_a_full_disk_is_an_error_and_no_file(small_disk: Path):
    with pytest.raises(OSError) as raised:
        store.write_bytes(small_disk / "file", os.urandom(2 << 20))
    assert raised.value.errno == errno.ENOSPC
    assert list(small_disk.iterdir()) == []


def test_only_the_columns_asked_for_are_read(tmp_path: Path):
    store.write_rows(tmp_path / "00000.parquet", iter([batch([bytes(16)])]), SCHEMA)
    dataset = Dataset("toy", "f", tmp_path, 1)
    for batches in (dataset.read(0, ["n"]), dataset.all(["n"])):
        assert [one.schema.names for one in batches] == [["n"]]


def test_many_rows_of_one_range_keep_their_order(tmp_path: Path):
    ids = [number.to_bytes(4, "big") * 4 for number in (0, 2**31) for _ in range(2000)]
    shuffled = ids[1::2] + ids[::2]
    write_scattered(tmp_path / "00000.parquet", [batch(shuffled)], shards=2)
    dataset = Dataset("toy", "f", tmp_path, 2, scattered=True)
    for half in range(2):
        numbers = [n for one in dataset.read(half) for n in one["n"].to_pylist()]
        assert numbers == sorted(numbers) and len(numbers) == 2000


@pytest.mark.parametrize(
    "count, shown",
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_250_000, "1.25 MB"), (7e15, "7e+03 TB")],
)
def test_sizes_are_in_powers_of_a_thousand(count: float, shown: str):
    assert store.size(count) == shown
