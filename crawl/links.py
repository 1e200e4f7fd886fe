"""Merges submissions into links: one row per `link_id`, with its karma and one outcome.

The result is a function of the set of submissions: neither their order nor a dump read twice
changes a byte.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawl import refusals, repeats
from crawl.config import CrawlConfig
from crawl.schema import LINKS, SUBMISSIONS, LinkOutcome

VERSION = 3

BATCH_ROWS = 1 << 16
"""Submissions merged at once, at least."""
NEVER = np.int64(2**31)
"""After the last day that a date can hold."""

Numbers = np.ndarray[Any, np.dtype[np.int64]]


def merge(rows: Iterable[pa.RecordBatch], config: CrawlConfig) -> Iterator[pa.RecordBatch]:
    """The links of all submissions of one range of ids, sorted by id, in one batch after another.
    The rows come in order of their links, all rows of a link in one batch.

    A post counts once, however often it comes, and with its crossposts. `fetch_url` is the one of
    the post with the highest score, among these the earliest, then the one with the smallest id.
    """
    held: list[pa.RecordBatch] = []
    for batch in rows:
        held.append(batch)
        if sum(map(len, held)) >= BATCH_ROWS:
            yield from _merged(held, config)
            held = []
    yield from _merged(held, config)


def _merged(held: Sequence[pa.RecordBatch], config: CrawlConfig) -> Iterator[pa.RecordBatch]:
    """The links of batches that hold them whole."""
    if not sum(map(len, held)):
        return
    table = repeats.combine(pa.Table.from_batches(held, SUBMISSIONS)).combine_chunks()
    (posts,) = table.to_batches()
    starts = _starts(posts["link_id"])
    scores = pc.fill_null(posts["score"], config.min_karma).to_numpy().astype(np.int64)
    days = pc.fill_null(posts["day"].cast(pa.int32()), None).cast(pa.int64())
    days = pc.fill_null(days, NEVER).to_numpy()
    best = posts.take(pa.array(_best(starts, scores, days)))
    karma = _karma(posts, starts, scores, config)
    links = pa.table(
        [
            best["link_id"],
            best["url_key"],
            best["fetch_url"],
            refusals.hosts(best["fetch_url"]),
            pa.array(karma),
            _lists(starts, posts["post_id"]),
            _subreddits(starts, posts["subreddit"]),
            _first_days(starts, days),
            _outcomes(best["fetch_url"], karma, config),
        ],
        LINKS,
    )
    yield from links.to_batches()


def _starts(ids: pa.Array) -> Numbers:
    """Where each link's posts begin, in order."""
    change = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.flatnonzero(change) + 1])


def _groups(starts: Numbers, count: int) -> Numbers:
    """The number of the link of every post."""
    return np.repeat(np.arange(len(starts)), np.diff(starts, append=count))


def _best(starts: Numbers, scores: Numbers, days: Numbers) -> Numbers:
    """The post that speaks for each link. The posts of a link stand in order of their ids."""
    order = np.lexsort((days, -scores, _groups(starts, len(scores))))
    return order[starts]


def _karma(posts: pa.RecordBatch, starts: Numbers, scores: Numbers, config: CrawlConfig) -> Numbers:
    if config.karma_rule != "sum":
        return np.maximum.reduceat(scores, starts)
    counted = scores.copy()
    crossposted = np.flatnonzero(posts["crosspost_of"].is_valid().to_numpy(zero_copy_only=False))
    for link in np.unique(np.searchsorted(starts, crossposted, side="right") - 1):
        end = starts[link + 1] if link + 1 < len(starts) else len(scores)
        few = range(starts[link], end)
        counted[starts[link] : end] = 0
        counted[starts[link]] = _sum_of_roots(posts.slice(few.start, len(few)), scores[few])
    return np.add.reduceat(counted, starts)


def _sum_of_roots(posts: pa.RecordBatch, scores: Numbers) -> int:
    """The karma of one link: a post and all that was crossposted from it give their best score."""
    names, of = posts["post_id"].to_pylist(), posts["crosspost_of"].to_pylist()
    parents = dict(zip(names, of, strict=True))
    best: dict[str, int] = {}
    for post, score in zip(parents, scores, strict=True):
        root, seen = post, {post}
        while (parent := parents.get(root)) and parent not in seen:
            root = parent
            seen.add(parent)
        best[root] = max(int(score), best.get(root, int(score)))
    return sum(best.values())


def _lists(starts: Numbers, values: pa.Array) -> pa.Array:
    """The values of each link as a list."""
    return pa.ListArray.from_arrays(pa.array([*starts, len(values)], pa.int32()), values)


def _subreddits(starts: Numbers, names: pa.Array) -> pa.Array:
    """The different subreddits of each link, in order of their names."""
    known = pc.sort_indices(different := names.unique().drop_null())
    ordered = different.take(known)
    codes = pc.index_in(names, ordered)
    groups = _groups(starts, len(names))[names.is_valid().to_numpy(zero_copy_only=False)]
    # Nearly in order already, which a stable sort makes use of and `unique` would not.
    pairs = np.sort(groups * (len(ordered) + 1) + codes.drop_null().to_numpy(), kind="stable")
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    values = ordered.take(pa.array(pairs % (len(ordered) + 1)))
    return _lists(np.searchsorted(pairs // (len(ordered) + 1), np.arange(len(starts))), values)


def _first_days(starts: Numbers, days: Numbers) -> pa.Array:
    first = np.minimum.reduceat(days, starts)
    return pa.array(first, mask=first == NEVER).cast(pa.int32()).cast(pa.date32())


def _outcomes(fetch_urls: pa.Array, karma: Numbers, config: CrawlConfig) -> pa.Array:
    """Below the karma that is asked for, refused, or kept."""
    enough = pa.array(karma >= config.min_karma)
    reasons = refusals.reasons(fetch_urls.filter(enough), config).fill_null(LinkOutcome.KEPT)
    below = pa.repeat(pa.scalar(str(LinkOutcome.BELOW_KARMA)), len(karma))
    return pc.replace_with_mask(below, enough, reasons)
