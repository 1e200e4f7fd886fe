"""Which documents go, for which kept twin: a maximal independent set in a fixed order of priority.

A document is dropped if and only if it is similar to a *kept* one of higher priority, so no chain
of likenesses drops anything. Only what passes the policy can be kept, so a text never goes for a
twin that goes itself. Priority: more shingles first, then the smaller id. Documents of equal sets
are one another's equals in every comparison, so they are decided together.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from dedup import policy
from dedup.config import CorpusConfig, DedupConfig
from dedup.schema import DUPLICATES, PAIRS, Lookup
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


def find(
    pairs: Iterable[pa.RecordBatch], signals: Lookup, config: DedupConfig, rules: CorpusConfig
) -> Iterator[pa.RecordBatch]:
    """One row for each document that is related to another, sorted by id; `keeper_id` where it is
    a duplicate."""
    table = pa.Table.from_batches(pairs, PAIRS)
    related = [
        pair
        for pair in map(Pair, *(column.to_pylist() for column in table.columns))
        if pair.jaccard >= config.related
    ]
    clusters = groups((pair.a, pair.b) for pair in related)
    measured = signals(list(clusters), policy.COLUMNS).to_pylist()
    clean = {row["document_id"] for row in measured if not policy.broken(row, rules)}
    twins = keepers(related, clean, config.threshold)
    rows = [
        {
            "document_id": document,
            "cluster_id": cluster,
            "keeper_id": twins[document].keeper if document in twins else None,
            "jaccard": twins[document].jaccard if document in twins else None,
        }
        for document, cluster in clusters.items()
    ]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield pa.RecordBatch.from_pylist(rows[start : start + ROWS_AT_ONCE], DUPLICATES)


def keepers(pairs: Sequence[Pair], clean: set[bytes], threshold: float) -> dict[bytes, Twin]:
    """For each document that is a duplicate, the kept twin of highest priority.

    `clean`: the documents that may be kept. Work is on classes of equal sets, named by their
    smallest member; a class stands for its smallest clean member, if it has one.
    """
    equal = groups((pair.a, pair.b) for pair in pairs if pair.jaccard == 1)
    classes: dict[bytes, list[bytes]] = {}
    shingles: dict[bytes, int] = {}
    neighbours: dict[bytes, dict[bytes, float]] = {}
    for document in sorted({document for pair in pairs for document in (pair.a, pair.b)}):
        classes.setdefault(equal.get(document, document), []).append(document)
    for pair in pairs:
        a, b = equal.get(pair.a, pair.a), equal.get(pair.b, pair.b)
        shingles[a], shingles[b] = pair.a_shingles, pair.b_shingles
        if a != b and pair.jaccard >= threshold:
            neighbours.setdefault(a, {})[b] = pair.jaccard
            neighbours.setdefault(b, {})[a] = pair.jaccard
    kept: dict[bytes, bytes] = {}
    twins: dict[bytes, Twin] = {}
    by_priority = sorted(classes, key=lambda name: (-shingles[name], name))
    rank = {name: place for place, name in enumerate(by_priority)}
    for name in by_priority:
        near = neighbours.get(name, {})
        found = sorted((rank[other], other) for other in near if other in kept)
        standing = next((member for member in classes[name] if member in clean), None)
        if found:
            best = found[0][1]
            twin = Twin(kept[best], near[best])
            twins |= dict.fromkeys(classes[name], twin)
        elif standing:
            kept[name] = standing
            twins |= {m: Twin(standing, 1.0) for m in classes[name] if m != standing}
    return twins
