"""Rows of the dedup half, and the closed list of verdicts.

A document's id is an opaque 16-byte value here.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import pyarrow as pa

Lookup = Callable[[Sequence[bytes], Sequence[str]], pa.Table]
"""(ids, columns) -> the rows of these ids in a dataset."""

ID = pa.binary(16)
BAND_KEY = pa.binary(8)

Verdict = Literal["kept", "dropped"]
Split = Literal["train", "validation"]

RULES = (
    "duplicate",
    "min_words",
    "max_words",
    "language",
    "mean_word_length",
    "alphabetic_share",
    "stop_word_share",
    "duplicate_line_share",
    "top_3gram_share",
)
"""Why a document is dropped, in the order in which `rule` names the first."""

SIGNATURES = pa.schema(
    [
        ("document_id", ID),
        ("exact", pa.binary(16)),  # xxh3-128 of the normal form: equal texts, equal hashes
        ("shingles", pa.int32()),  # size of the set, not of the text
        ("minima", pa.list_(pa.uint32())),
    ]
)

BANDS = pa.schema([("band_key", BAND_KEY), ("document_id", ID)])

PAIRS = pa.schema(
    [
        ("a", ID),  # a < b
        ("b", ID),
        ("jaccard", pa.float64()),  # exact, of the shingle sets
        ("a_shingles", pa.int32()),
        ("b_shingles", pa.int32()),
    ]
)

DUPLICATES = pa.schema(
    [
        ("document_id", ID),
        ("cluster_id", ID),  # smallest id of its connected group at dedup.related
        ("keeper_id", ID),  # the kept twin for which it is dropped; null: it is kept itself
        ("jaccard", pa.float64()),  # with the keeper
    ]
)

CORPUS = pa.schema(
    [
        ("document_id", ID),
        ("url", pa.string()),
        ("verdict", pa.string()),
        ("rule", pa.string()),  # the first rule that drops it
        ("rules", pa.list_(pa.string())),  # all that would
        ("split", pa.string()),
    ]
)
