"""What a task reports and what a dataset's manifest says: sums that can be folded in any order.

A shard is whole when its report exists, a dataset when its manifest does. The *set hash* of rows is
the sum of their hashes (XXH3, 128 bits), so it does not depend on how rows are spread over files,
nor on Parquet's bytes. It tells sets apart; files are proven by digests.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest, xxh3_128_intdigest

SET_HASH_BITS = 128
MAX_FAULTS = 1000
"""Written out in a manifest; the counts say how many there are."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a task."""

    name: str
    bytes: int
    digest: str
    """blake2b-128 of the file's bytes, hexadecimal."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one task did. Written last: where it stands, the task is done."""

    index: int
    rows: int
    set_hash: str
    """Sum of the rows' hashes modulo 2^128, hexadecimal."""
    counts: dict[str, dict[str, int]]
    """Of each counted column, how often each value came."""
    left_out: dict[str, int]
    """What the task read and left out, by reason."""
    faults: list[str] = []
    """The first things that could not be read: file, place, reason."""
    makes: str = ""
    """Names the rows, where they were made of one leaf alone: another generation can take them."""
    files: list[Written]
    seconds: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A whole dataset: the fold of all reports."""

    dataset: str
    fingerprint: str
    shards: int
    scattered: bool
    rows: int
    bytes: int
    set_hash: str
    counts: dict[str, dict[str, int]]
    left_out: dict[str, int]
    faults: list[str] = []
    """The first things that its tasks could not read."""
    files: list[Written]
    seconds: float
    """Seconds of work, summed over tasks."""
    tasks: int


def fold(
    dataset: str,
    fingerprint: str,
    shards: int,
    scattered: bool,
    reports: Sequence[Report],
    before: Sequence[Report] = (),
) -> Manifest:
    """The manifest of a dataset whose tasks reported this. `before`: of the tasks that left no rows
    of the dataset; what they read, left out and could not read is told all the same."""
    counts: dict[str, Counter[str]] = {}
    left_out: Counter[str] = Counter()
    everyone = [*before, *reports]
    for report in everyone:
        left_out.update(report.left_out)
    for report in reports:
        for column, values in report.counts.items():
            counts.setdefault(column, Counter()).update(values)
    files = [file for report in reports for file in report.files]
    return Manifest(
        dataset=dataset,
        fingerprint=fingerprint,
        shards=shards,
        scattered=scattered,
        rows=sum(report.rows for report in reports),
        bytes=sum(file.bytes for file in files),
        set_hash=add_hashes(report.set_hash for report in reports),
        counts={column: dict(sorted(values.items())) for column, values in sorted(counts.items())},
        left_out=dict(sorted(left_out.items())),
        faults=[fault for report in everyone for fault in report.faults][:MAX_FAULTS],
        files=files,
        seconds=round(sum(report.seconds for report in everyone), 3),
        tasks=len(everyone),
    )


def add_hashes(hashes: Iterable[str]) -> str:
    """The set hash of a union of disjoint sets of rows."""
    total = sum(int(value, 16) for value in hashes) % (1 << SET_HASH_BITS)
    return f"{total:032x}"


def root_hash(set_hashes: dict[str, str]) -> str:
    """One hash over the set hashes of a run's datasets, by name."""
    text = "\n".join(f"{name} {value}" for name, value in sorted(set_hashes.items()))
    return blake2b(text.encode(), digest_size=16).hexdigest()


class Tally:
    """Rows, their set hash and the counted columns, without nulls, of the batches that pass
    through it."""

    def __init__(self, counted: Sequence[str], volatile: Sequence[str]) -> None:
        self.rows = 0
        self.hash = 0
        self.counts: dict[str, Counter[str]] = {column: Counter() for column in counted}
        self._volatile = frozenset(volatile)

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, counted as they are taken."""
        for batch in batches:
            self.rows += batch.num_rows
            self.hash += sum(row_hashes(batch, self._volatile))
            for column, counter in self.counts.items():
                counter.update(map(str, batch[column].drop_null().to_pylist()))
            yield batch

    @property
    def set_hash(self) -> str:
        """Hexadecimal set hash of all rows seen."""
        return f"{self.hash % (1 << SET_HASH_BITS):032x}"


def row_hashes(batch: pa.RecordBatch, volatile: frozenset[str]) -> Iterator[int]:
    """The hash of each row: of its values in canonical form, each with its length before it, in the
    order of their columns' names, which are the seed."""
    names = sorted(name for name in batch.schema.names if name not in volatile)
    seed = xxh3_64_intdigest("\0".join(names).encode())
    parts: list[pa.Array] = []
    for name in names:
        values = _canonical(batch[name]).cast(pa.large_binary())
        parts += [_lengths(values), values.fill_null(b"")]
    rows = pc.binary_join_element_wise(*parts, pa.scalar(b":", pa.large_binary()))
    return (xxh3_128_intdigest(row, seed) for row in rows.to_pylist())


def _lengths(values: pa.Array) -> pa.Array:
    """How long each value is, as text; a sign that is no number where there is none."""
    lengths = pc.binary_length(values).cast(pa.string()).fill_null("-")
    return lengths.cast(pa.binary()).cast(pa.large_binary())


def _canonical(column: pa.Array) -> pa.Array:
    """One spelling of each value, as binary: text in UTF-8, numbers and dates as text, a list of
    numbers as 8 bytes each, of texts as texts with their lengths, all else as JSON."""
    kind = column.type
    if any(is_one(kind) for is_one in _BINARY):
        return column.cast(pa.binary()) if pa.types.is_fixed_size_binary(kind) else column
    if pa.types.is_integer(kind) or pa.types.is_date(kind):
        return column.cast(pa.string()).cast(pa.binary())
    if pa.types.is_list(kind) and pa.types.is_integer(kind.value_type):
        return pa.array(_integer_lists(column), pa.large_binary())
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return _text_lists(column)
    values = (None if one is None else msgspec.json.encode(one) for one in column.to_pylist())
    return pa.array(values, pa.large_binary())


def _integer_lists(column: pa.Array) -> Iterator[bytes]:
    """Token lists without a Python object for every token."""
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy(zero_copy_only=False).astype("<i8", copy=False)
    for start, end in pairwise(offsets):
        yield np.ascontiguousarray(values[start:end]).tobytes()


def _text_lists(column: pa.Array) -> pa.Array:
    values = column.flatten().cast(pa.binary()).cast(pa.large_binary())
    told = pc.binary_join_element_wise(
        _lengths(values), values.fill_null(b""), pa.scalar(b":", pa.large_binary())
    )
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, told), pa.scalar(b"", told.type))
    return pc.if_else(column.is_valid(), joined, pa.scalar(None, joined.type))


_BINARY = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
)
