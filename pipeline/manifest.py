"""What a task reports and what a dataset's manifest says: sums that can be folded in any order.

A shard is whole when its report exists, a dataset when its manifest does. The *set hash* of rows is
the sum of their hashes, so it does not depend on how rows are spread over files, nor on Parquet's
bytes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

SET_HASH_BITS = 128


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
    files: list[Written]
    seconds: float
    """Seconds of work, summed over tasks."""
    tasks: int


def fold(
    dataset: str, fingerprint: str, shards: int, scattered: bool, reports: Sequence[Report]
) -> Manifest:
    """The manifest of a dataset whose tasks reported this."""
    counts: dict[str, Counter[str]] = {}
    left_out: Counter[str] = Counter()
    for report in reports:
        left_out.update(report.left_out)
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
        files=files,
        seconds=round(sum(report.seconds for report in reports), 3),
        tasks=len(reports),
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
            for row in row_bytes(batch, self._volatile):
                self.hash += int.from_bytes(blake2b(row, digest_size=16).digest(), "big")
            for column, counter in self.counts.items():
                counter.update(map(str, batch[column].drop_null().to_pylist()))
            yield batch

    @property
    def set_hash(self) -> str:
        """Hexadecimal set hash of all rows seen."""
        return f"{self.hash % (1 << SET_HASH_BITS):032x}"


def row_bytes(batch: pa.RecordBatch, volatile: frozenset[str]) -> Iterator[bytes]:
    """Each row in canonical form: the columns by name, every value with its length before it."""
    names = sorted(name for name in batch.schema.names if name not in volatile)
    columns = [_value_bytes(batch[name]) for name in names]
    head = "\0".join(names).encode()
    for row in zip(*columns, strict=True):
        yield head + b"".join(len(value).to_bytes(8, "little") + value for value in row)


def _value_bytes(column: pa.Array) -> Iterable[bytes]:
    if pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type):
        return _integer_lists(column)
    return (_NULL if v is None else _scalar_bytes(v) for v in column.to_pylist())


def _scalar_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return msgspec.json.encode(value)


def _integer_lists(column: pa.Array) -> Iterator[bytes]:
    """Token lists without a Python object for every token."""
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy(zero_copy_only=False).astype("<i8", copy=False)
    for start, end in pairwise(offsets):
        yield np.ascontiguousarray(values[start:end]).tobytes()


_NULL = b"\0null"
