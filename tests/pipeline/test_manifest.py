"""Set hashes and manifests: sums that do not depend on how rows lie."""

import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import manifest
from pipeline.manifest import Report, Tally, Written

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.binary(min_size=4, max_size=4),
            "text": st.none() | st.text(),
            "tokens": st.lists(st.integers(0, 65535), max_size=5),
            "share": st.floats(allow_nan=False),
        }
    ),
    max_size=12,
)
SCHEMA = pa.schema(
    [
        ("id", pa.binary(4)),
        ("text", pa.large_string()),
        ("tokens", pa.list_(pa.uint16())),
        ("share", pa.float64()),
    ]
)


def set_hash(*batches: pa.RecordBatch, volatile: tuple[str, ...] = ()) -> str:
    tally = Tally((), volatile)
    assert list(tally.watch(batches)) == list(batches)
    return tally.set_hash


@given(ROWS, st.integers(0, 12), st.randoms(use_true_random=False))
def test_the_set_hash_does_not_depend_on_batches_order_or_columns(rows, cut, random):
    whole = set_hash(pa.RecordBatch.from_pylist(rows, SCHEMA))
    shuffled = random.sample(rows, len(rows))
    parts = [pa.RecordBatch.from_pylist(part, SCHEMA) for part in (shuffled[:cut], shuffled[cut:])]
    assert set_hash(*[part.select(SCHEMA.names[::-1]) for part in parts]) == whole
    assert manifest.add_hashes(set_hash(part) for part in parts) == whole


@given(ROWS, ROWS)
def test_other_rows_have_another_hash(a, b):
    # hypothesis draws the keys of a row in any order, which is no part of the row
    one, other = (sorted(repr(sorted(row.items())) for row in rows) for rows in (a, b))
    hashes = [set_hash(pa.RecordBatch.from_pylist(rows, SCHEMA)) for rows in (a, b)]
    assert (hashes[0] == hashes[1]) == (one == other)


@pytest.mark.parametrize(
    "one, other",
    [
        ({"a": "xy", "b": "z"}, {"a": "x", "b": "yz"}),
        ({"a": None, "b": ""}, {"a": "", "b": None}),
        ({"a": "x", "b": "y"}, {"a": "y", "b": "x"}),
    ],
)
def test_values_cannot_run_into_each_other(one, other):
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    batches = [pa.RecordBatch.from_pylist([row], schema) for row in (one, other)]
    assert set_hash(batches[0]) != set_hash(batches[1])


def test_equal_rows_count_as_often_as_they_stand_there():
    row = pa.RecordBatch.from_pylist([{"a": 1}])
    assert set_hash(row) != set_hash(row, row) != set_hash()


def test_volatile_columns_do_not_count():
    rows = [{"a": 1, "at": datetime.datetime(2026, 1, day)} for day in (1, 2)]
    first, second = (pa.RecordBatch.from_pylist([row]) for row in rows)
    assert set_hash(first) != set_hash(second)
    assert set_hash(first, volatile=("at",)) == set_hash(second, volatile=("at",))


def test_known_answer():
    """A root hash is quoted in papers: the canonical form of a row must not drift."""
    batch = pa.RecordBatch.from_pylist([{"id": b"abcd", "tokens": [1, 2], "share": 0.5}], SCHEMA)
    assert set_hash(batch) == "fe1fa9031ba5afec73169ce4bb02a41e"


def report(index: int, rows: int, **counts: int) -> Report:
    return Report(
        index=index,
        rows=rows,
        set_hash=f"{rows:032x}",
        counts={"outcome": counts},
        left_out={"self": rows},
        files=[Written(name=f"{index:05d}.parquet", bytes=100 + rows, digest="")],
        seconds=1.5,
    )


def test_a_manifest_is_the_sum_of_its_reports():
    reports = [report(0, 3, ok=2, gone=1), report(1, 4, ok=4)]
    folded = manifest.fold("pages", "f", 2, False, reports)
    other = manifest.fold("pages", "f", 2, False, reports[::-1])
    assert (folded.rows, folded.bytes, folded.seconds, folded.tasks) == (7, 207, 3.0, 2)
    assert (other.rows, other.set_hash, other.counts) == (7, folded.set_hash, folded.counts)
    assert [file.name for file in folded.files] == ["00000.parquet", "00001.parquet"]
    assert folded.counts == {"outcome": {"gone": 1, "ok": 6}}
    assert folded.left_out == {"self": 7}
    assert folded.set_hash == f"{7:032x}"


def test_values_are_counted_and_nulls_are_not():
    schema = pa.schema([("rule", pa.string()), ("best", pa.bool_())])
    rows = [{"rule": "short", "best": True}, {"rule": None, "best": False}, {"rule": "short"}]
    tally = Tally(("rule", "best"), ())
    list(tally.watch([pa.RecordBatch.from_pylist(rows, schema)]))
    assert tally.counts == {"rule": {"short": 2}, "best": {"True": 1, "False": 1}}


def test_the_root_hash_follows_names_and_hashes_and_no_order():
    root = manifest.root_hash({"links": "1", "pages": "2"})
    assert manifest.root_hash({"pages": "2", "links": "1"}) == root
    assert manifest.root_hash({"links": "2", "pages": "1"}) != root
