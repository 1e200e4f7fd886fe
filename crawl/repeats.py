"""Posts that come more often than once: the same post in two dumps, or twice in one.

Rule: of each post of a link one row stays, the same one whatever order they come in; the others are
counted.
"""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawl.schema import LeftOut

BEST_FIRST = [
    ("link_id", "ascending"),
    ("post_id", "ascending"),
    ("score", "descending"),
    ("day", "ascending"),
    ("fetch_url", "ascending"),
    ("subreddit", "ascending"),
    ("crosspost_of", "ascending"),
]
"""The first of a post's rows is the one that stays."""

Flags = np.ndarray[Any, np.dtype[np.bool_]]


def copies(batch: pa.RecordBatch) -> Flags | None:
    """Which posts are copies of one before to the letter, None where none is: a quick first look,
    which `combine` ends. Their columns are `text`, `post_id` and any others."""
    # The lines of a list have no ids; the same text is the same line.
    named = "text" if pc.any(pc.equal(batch["post_id"], "")).as_py() else "post_id"
    codes = _codes(batch[named])
    count = int(codes.max(initial=-1)) + 1
    if count == len(codes):
        return None
    first = np.empty(count, np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    again = np.flatnonzero(first[codes] != np.arange(len(codes)))
    alike = np.ones(len(again), bool)
    for column in batch.columns:
        said = _codes(column)
        alike &= said[again] == said[first[codes[again]]]
    found = np.zeros(len(codes), bool)
    found[again[alike]] = True
    return found


def _codes(column: pa.Array) -> np.ndarray[Any, Any]:
    """A number for each different value of a column; nulls are one more."""
    codes: np.ndarray[Any, Any] = column.dictionary_encode("encode").indices.to_numpy()
    return codes


def combine(submissions: pa.Table, left_out: Counter[str] | None = None) -> pa.Table:
    """Each post once, sorted by link, then post: of one that comes more often, the row with the
    highest score; where these differ in more, the first in order of the other columns. The others
    are counted."""
    table = submissions.combine_chunks()
    halves = halves_of(table["link_id"])
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    same = (halves[order[1:]] == halves[order[:-1]]).all(axis=1)
    if same.any():
        order = _settled(table, order, same)
    if left_out is not None:
        left_out[LeftOut.REPEATED] += len(table) - len(order)
    return table.take(pa.array(order))


def _settled(table: pa.Table, order: Any, same: Any) -> Any:
    """The same order, but rows of one link by post, and the best row of each post alone."""
    crowded = np.zeros(len(order), bool)
    crowded[1:] |= same
    crowded[:-1] |= same
    few = table.take(pa.array(order[crowded]))
    ranks = pc.sort_indices(few, BEST_FIRST).to_numpy()
    order[crowded] = order[crowded][ranks]
    few = few.select(["link_id", "post_id"]).take(pa.array(ranks)).combine_chunks()
    repeated = np.zeros(len(order), bool)
    again = np.ones(len(few), bool)
    for name in ("link_id", "post_id"):
        column = few[name].chunk(0)
        again[1:] &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    again[0] = False
    repeated[crowded] = again
    return order[~repeated]


def halves_of(ids: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """The ids of a column as pairs of numbers, which compare as they do."""
    joined = pa.concat_arrays(ids.chunks) if ids.num_chunks else pa.array([], ids.type)
    _, buffer = joined.buffers()
    return np.frombuffer(buffer, ">u8", 2 * len(joined), 16 * joined.offset).reshape(-1, 2)
