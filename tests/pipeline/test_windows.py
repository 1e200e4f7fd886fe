"""Sorted streams as one: every row once, no key in two windows, and little held at once."""

from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline import windows

SCHEMA = pa.schema([("id", pa.binary(2)), ("n", pa.int64())])
KEYS = st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 255])).map(bytes)
STREAMS = st.lists(st.lists(KEYS, max_size=12).map(sorted), max_size=4)


def batches(ids: list[bytes], size: int, first: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(ids), size):
        some = ids[start : start + size]
        rows = [{"id": one, "n": first + start + n} for n, one in enumerate(some)]
        yield pa.RecordBatch.from_pylist(rows, SCHEMA)
        yield pa.RecordBatch.from_pylist([], SCHEMA)


@given(STREAMS, st.integers(1, 4))
def test_every_row_comes_once_and_every_key_in_one_window(streams, size):
    made = [batches(ids, size, 100 * number) for number, ids in enumerate(streams)]
    found = [window.to_pylist() for window in windows.windows(made, "id", SCHEMA)]
    rows = [row for window in found for row in window]
    expected = [(one, 100 * n + m) for n, ids in enumerate(streams) for m, one in enumerate(ids)]
    assert sorted((row["id"], row["n"]) for row in rows) == sorted(expected)
    spans = [(min(r["id"] for r in window), max(r["id"] for r in window)) for window in found]
    assert all(before[1] < after[0] for before, after in pairwise(spans))


def test_a_window_is_no_stream():
    ids = [number.to_bytes(2, "big") for number in range(1000)]
    made = [batches(ids[part::3], 10, 0) for part in range(3)]
    sizes = [len(window) for window in windows.windows(made, "id", SCHEMA)]
    assert sum(sizes) == 1000 and max(sizes) <= 60


@given(st.lists(st.binary(min_size=8, max_size=8)), st.lists(st.binary(min_size=3, max_size=3)))
def test_the_order_of_keys_is_that_of_their_bytes(eights, threes):
    for some, width in ((eights, 8), (threes, 3)):
        keys = windows.keys_of(pa.chunked_array([pa.array(some, pa.binary(width))]))
        order = windows.order_of(keys).tolist()
        assert order == sorted(range(len(some)), key=lambda n: (some[n], n))
