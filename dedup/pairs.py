"""Documents that share a band, with their verified similarity: every pair once, none on trust.

`spread` gives a row for each document and band; rows of one key meet in one partition; `match`
compares the real shingle sets there. A pair that shares several bands is compared where its first
shared band lies. Texts equal in normal form are compared through one of them, so a thousand copies
cost a thousand rows, not a million; near-copies that are not equal do cost their square.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dedup.config import DedupConfig
from dedup.schema import BANDS, PAIRS, Lookup
from dedup.shingles import Shingles, jaccard, shingles, words
from dedup.signatures import band_keys

VERSION = 1
TEXTS_AT_ONCE = 2048


class Candidate(NamedTuple):
    """Two documents that share a band, a < b; `equal` in normal form, or yet to be compared."""

    a: bytes
    b: bytes
    equal: bool


class Signed(NamedTuple):
    """What `match` needs of a signature."""

    exact: bytes
    shingles: int
    keys: list[bytes]


def spread(signatures: Iterable[pa.RecordBatch], config: DedupConfig) -> Iterator[pa.RecordBatch]:
    """A row for each document and band."""
    for batch in signatures:
        ids, keys = [], []
        for identifier, minima in zip(batch["document_id"], batch["minima"], strict=True):
            found = band_keys(np.array(minima.as_py(), np.uint32), config.bands, config.rows)
            keys += found
            ids += [identifier.as_py()] * len(found)
        yield pa.RecordBatch.from_arrays(
            [pa.array(keys, BANDS.field(0).type), pa.array(ids, BANDS.field(1).type)], schema=BANDS
        )


def match(
    bands: Iterable[pa.RecordBatch], signatures: Lookup, documents: Lookup, config: DedupConfig
) -> Iterator[pa.RecordBatch]:
    """The verified pairs of one partition of band keys, sorted by (a, b)."""
    buckets = _buckets(bands)
    ids = sorted({identifier for bucket in buckets.values() for identifier in bucket})
    signed = _signed(signatures(ids, ["document_id", "exact", "shingles", "minima"]), config)
    candidates = sorted(
        {c for key, bucket in buckets.items() for c in candidates_of(key, bucket, signed)}
    )
    for start in range(0, len(candidates), TEXTS_AT_ONCE):
        few = candidates[start : start + TEXTS_AT_ONCE]
        sets = _sets(documents, [i for c in few if not c.equal for i in (c.a, c.b)], config.ngram)
        rows = [_row(candidate, signed, sets) for candidate in few]
        yield pa.RecordBatch.from_pylist(rows, PAIRS)


def candidates_of(
    key: bytes, bucket: Sequence[bytes], signed: dict[bytes, Signed]
) -> Iterator[Candidate]:
    """The pairs of one bucket that are to be compared here and nowhere else."""
    first_of: dict[bytes, bytes] = {}
    for identifier in sorted(bucket):
        first = first_of.setdefault(signed[identifier].exact, identifier)
        if first != identifier and signed[identifier].keys[0] == key:
            yield Candidate(first, identifier, equal=True)
    for a, b in combinations(sorted(first_of.values()), 2):
        if _first_shared(signed[a].keys, signed[b].keys) == key:
            yield Candidate(a, b, equal=False)


def _first_shared(a: list[bytes], b: list[bytes]) -> bytes:
    return next(x for x, y in zip(a, b, strict=True) if x == y)


def _buckets(bands: Iterable[pa.RecordBatch]) -> dict[bytes, list[bytes]]:
    """Band key -> the documents that have it, where there are two or more."""
    table = pa.Table.from_batches(bands, BANDS)
    buckets: dict[bytes, list[bytes]] = {}
    for key, identifier in zip(*(column.to_pylist() for column in table.columns), strict=True):
        buckets.setdefault(key, []).append(identifier)
    return {key: found for key, found in sorted(buckets.items()) if len(found) > 1}


def _signed(signatures: pa.Table, config: DedupConfig) -> dict[bytes, Signed]:
    return {
        row["document_id"]: Signed(
            row["exact"],
            row["shingles"],
            band_keys(np.array(row["minima"], np.uint32), config.bands, config.rows),
        )
        for row in signatures.to_pylist()
    }


def _sets(documents: Lookup, ids: Sequence[bytes], ngram: int) -> dict[bytes, Shingles]:
    table = documents(sorted(set(ids)), ["document_id", "text"])
    return {row["document_id"]: shingles(words(row["text"]), ngram) for row in table.to_pylist()}


def _row(
    candidate: Candidate, signed: dict[bytes, Signed], sets: dict[bytes, Shingles]
) -> dict[str, object]:
    a, b, equal = candidate
    return {
        "a": a,
        "b": b,
        "jaccard": 1.0 if equal else jaccard(sets[a], sets[b]),
        "a_shingles": signed[a].shingles,
        "b_shingles": signed[b].shingles,
    }
