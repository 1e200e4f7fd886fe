"""Several streams of sorted rows as one, a window at a time: what is held is a window, never a
stream.

Rule: all rows of a key are in one window, and windows come in order of their keys.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Keys = np.ndarray[Any, np.dtype[np.bytes_]]


def windows(
    streams: Sequence[Iterator[pa.RecordBatch]], key: str, schema: pa.Schema
) -> Iterator[pa.Table]:
    """The rows of all streams, each sorted by `key`, a binary column of one width. Within a window
    they stand by stream; a window has about as many rows as a batch of each stream."""
    heads = [_Head(stream, key, schema) for stream in streams]
    while live := [head for head in heads if head.rows.num_rows]:
        open_ends = [head for head in live if not head.ended]
        if not open_ends:
            yield pa.concat_tables([head.take(head.rows.num_rows) for head in live])
            continue
        first = min(open_ends, key=lambda head: head.last)
        bound = first.last
        taken = [head.take(head.below(bound)) for head in live]
        first.more()  # what it holds now begins with the bound, which may go on
        whole = pa.concat_tables(taken)
        if whole.num_rows:
            yield whole


class _Head:
    """The rows of one stream that were read and not taken yet."""

    def __init__(self, stream: Iterator[pa.RecordBatch], key: str, schema: pa.Schema) -> None:
        self._stream, self._key, self._schema = stream, key, schema
        self.rows = pa.Table.from_batches([], schema)
        self.ended = False
        self.more()

    def more(self) -> None:
        """Read a batch that has rows, unless the stream has ended."""
        for batch in self._stream:
            if batch.num_rows:
                self.rows = pa.concat_tables([self.rows, pa.Table.from_batches([batch])])
                return
        self.ended = True

    @property
    def last(self) -> bytes:
        """The highest key that is read."""
        key: bytes = self.rows[self._key][-1].as_py()
        return key

    def below(self, bound: bytes) -> int:
        """How many rows have a lower key."""
        return int(np.searchsorted(keys_of(self.rows[self._key]), np.array(bound, self._width)))

    @property
    def _width(self) -> str:
        return f"S{self._schema.field(self._key).type.byte_width}"

    def take(self, count: int) -> pa.Table:
        """The first rows, which are then no longer held."""
        taken, self.rows = self.rows.slice(0, count), self.rows.slice(count)
        if not self.rows.num_rows and not self.ended:
            self.more()
        return taken


def order_of(keys: Keys) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The places of the keys in their order; equal ones stay in the order they have."""
    if keys.itemsize % 8:
        return np.argsort(keys, kind="stable")
    # Compared faster as numbers, and in the same way.
    numbers = keys.view(">u8").reshape(len(keys), keys.itemsize // 8)
    return np.lexsort(numbers.T[::-1])


def keys_of(column: pa.ChunkedArray) -> Keys:
    """A binary column of one width as an array that numpy compares byte by byte."""
    width = column.type.byte_width
    joined = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if not len(joined):
        return np.empty(0, f"S{width}")
    return np.frombuffer(joined.buffers()[1], f"S{width}", len(joined), joined.offset * width)
