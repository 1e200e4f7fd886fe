"""Each document's verdict: the one place where anything is dropped.

A pure policy over signals and duplicates. All rules are applied to every document, so that the
effect of each, own and shared, can be counted, and another threshold rewrites verdicts only.
Related documents fall on the same side of the train / validation split, since the split is a hash
of their cluster.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from dedup.config import CorpusConfig
from dedup.schema import CORPUS, RULES, Split

VERSION = 1

Signals = Mapping[str, Any]
Rule = Callable[[Signals, CorpusConfig], bool]

DROPS: dict[str, Rule] = {
    "min_words": lambda s, c: s["words"] < c.min_words,
    "max_words": lambda s, c: s["words"] > c.max_words,
    "language": lambda s, c: (
        bool(c.languages)
        and (s["language"] not in c.languages or s["language_score"] < c.min_language_score)
    ),
    "mean_word_length": lambda s, c: (
        not (c.min_mean_word_length <= s["mean_word_length"] <= c.max_mean_word_length)
    ),
    "alphabetic_share": lambda s, c: s["alphabetic_share"] < c.min_alphabetic_share,
    "stop_word_share": lambda s, c: s["stop_word_share"] < c.min_stop_word_share,
    "duplicate_line_share": lambda s, c: s["duplicate_line_share"] > c.max_duplicate_line_share,
    "top_3gram_share": lambda s, c: s["top_3gram_share"] > c.max_top_3gram_share,
}
"""Whether a document's signals break a rule."""


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
    broken = {name for name, drops in DROPS.items() if drops(signals, config)}
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
