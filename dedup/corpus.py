"""Each document's verdict: the one place where anything is dropped.

The policy's rules over signals, and the kept twins that `duplicates` found.
Related documents fall on the same side of the train / validation split, since the split is a hash
of their cluster.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from dedup import policy
from dedup.config import CorpusConfig
from dedup.policy import Signals
from dedup.schema import CORPUS, RULES, Split

VERSION = 1


def keep(
    documents: Iterable[pa.RecordBatch],
    signals: Iterable[pa.RecordBatch],
    duplicates: Iterable[pa.RecordBatch],
    config: CorpusConfig,
) -> Iterator[pa.RecordBatch]:
    """One verdict for each document that has a text. All three are sorted by document_id.

    Reads document_id, url, outcome of documents, every column of signals and duplicates.
    """
    related = {row["document_id"]: row for batch in duplicates for row in batch.to_pylist()}
    measured = (row for batch in signals for row in batch.to_pylist())
    for batch in documents:
        rows = batch.select(["document_id", "url", "outcome"]).to_pylist()
        judged = [
            judge(row, next(measured), related.get(row["document_id"]), config)
            for row in rows
            if row["outcome"] == "ok"
        ]
        yield pa.RecordBatch.from_pylist(judged, CORPUS)


def judge(
    document: Mapping[str, Any],
    signals: Signals,
    relation: Mapping[str, Any] | None,
    config: CorpusConfig,
) -> dict[str, Any]:
    """The verdict on one document; `relation` is its row of duplicates, if it has one."""
    if signals["document_id"] != document["document_id"]:
        raise ValueError(
            f"signals and documents differ at {document['document_id'].hex()} ({document['url']}): "
            "they are not of one run; make signals anew (--remake signals)"
        )
    duplicate = relation is not None and relation["keeper_id"] is not None
    broken = policy.broken(signals, config)
    rules = [name for name in RULES if name in broken or (name == "duplicate" and duplicate)]
    cluster = relation["cluster_id"] if relation else document["document_id"]
    return {
        "document_id": document["document_id"],
        "url": document["url"],
        "verdict": "dropped" if rules else "kept",
        "rule": rules[0] if rules else None,
        "rules": rules,
        "split": None if rules else split(cluster, config),
    }


def split(cluster: bytes, config: CorpusConfig) -> Split:
    """The side a cluster falls on, by hash and seed."""
    digest = blake2b(cluster, digest_size=8, key=config.seed.to_bytes(8, "little")).digest()
    held_out = int.from_bytes(digest, "big") < config.validation_share * 2**64
    return "validation" if held_out else "train"
