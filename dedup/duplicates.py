"""Which documents go, for which kept twin: a maximal independent set in a fixed order of priority.

A document is dropped if and only if it is similar to a *kept* one of higher priority, so no chain
of likenesses drops anything. Priority: more shingles first, then the smaller id. Documents of equal
sets are one another's equals in every comparison, so they are decided together.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from dedup.config import DedupConfig
from dedup.schema import DUPLICATES, PAIRS
from dedup.union_find import groups

VERSION = 1
ROWS_AT_ONCE = 1024


class Pair(NamedTuple):
    """A row of PAIRS."""

    a: bytes
    b: bytes
    jaccard: float
    a_shingles: int
    b_shingles: int


class Twin(NamedTuple):
    """A kept document and how similar it is."""

    keeper: bytes
    jaccard: float


def find(pairs: Iterable[pa.RecordBatch], config: DedupConfig) -> Iterator[pa.RecordBatch]:
    """One row for each document that is related to another, sorted by id; `keeper_id` where it is
    dropped."""
    table = pa.Table.from_batches(pairs, PAIRS)
    related = [
        pair
        for pair in map(Pair, *(column.to_pylist() for column in table.columns))
        if pair.jaccard >= config.related
    ]
    clusters = groups((pair.a, pair.b) for pair in related)
    dropped = keepers(related, config.threshold)
    rows = [
        {
            "document_id": document,
            "cluster_id": cluster,
            "keeper_id": dropped[document].keeper if document in dropped else None,
            "jaccard": dropped[document].jaccard if document in dropped else None,
        }
        for document, cluster in clusters.items()
    ]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield pa.RecordBatch.from_pylist(rows[start : start + ROWS_AT_ONCE], DUPLICATES)


def keepers(pairs: Sequence[Pair], threshold: float) -> dict[bytes, Twin]:
    """For each document that is dropped, the kept twin of highest priority."""
    equal = groups((pair.a, pair.b) for pair in pairs if pair.jaccard == 1)
    neighbours: dict[bytes, dict[bytes, float]] = {}
    shingles: dict[bytes, int] = {}
    for pair in pairs:
        a, b = equal.get(pair.a, pair.a), equal.get(pair.b, pair.b)
        shingles[a], shingles[b] = pair.a_shingles, pair.b_shingles
        if a != b and pair.jaccard >= threshold:
            neighbours.setdefault(a, {})[b] = pair.jaccard
            neighbours.setdefault(b, {})[a] = pair.jaccard
    dropped: dict[bytes, Twin] = {}
    kept: set[bytes] = set()
    by_priority = sorted(shingles, key=lambda member: (-shingles[member], member))
    rank = {member: place for place, member in enumerate(by_priority)}
    for member in by_priority:
        found = sorted((rank[n], n) for n in neighbours.get(member, {}) if n in kept)
        if found:
            keeper = found[0][1]
            dropped[member] = Twin(keeper, neighbours[member][keeper])
        else:
            kept.add(member)
    for member, first in equal.items():
        if member != first:
            dropped[member] = dropped.get(first, Twin(first, 1.0))
    return dropped
