"""Rows of the dataset `tokens`, on the way (TOKENS) and on disk beside the ids (INDEX)."""

import pyarrow as pa

TOKENS = pa.schema(
    [
        pa.field("document_id", pa.binary(16), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("tokens", pa.list_(pa.uint16()), nullable=False),
    ]
)
"""A kept document: its URL as it was asked for, its GPT-2 ids, the last of them end-of-text."""

INDEX = pa.schema(
    [
        pa.field("document_id", pa.binary(16), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
    ]
)
"""Where a document's ids lie: `length` ids (end-of-text included) from id number `start` of the
split's file, in the file's order. Its URL stands here too: a machine that has only these files
can say where each id came from."""

SPLITS = ("train", "validation")
"""Every document is in one of these."""
