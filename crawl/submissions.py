"""Reads a file of links into submissions: a post of Reddit that carries an outbound link.

Every post becomes one row or one count under a named reason; a line that is no post is a fault, and
never costs its neighbours. Scores are not judged here: a URL's karma needs all of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawl import dumps, keys, posts, repeats
from crawl.account import Account
from crawl.config import CrawlConfig
from crawl.posts import Post, Posts
from crawl.schema import SUBMISSIONS, BadInput, LeftOut
from crawl.streams import Part
from crawl.url import MAX_CHARACTERS

VERSION = 2

AS_SAID = ("crosspost_of", "score", "day", "subreddit")
LAST_SECOND = 253402300800  # the year 10000, which no date can hold
DAY_S = 86400
INT32 = 2**31
BATCH_ROWS = 1 << 19
"""Posts whose addresses are looked at together: the more, the more of them are the same."""
BATCH_BYTES = 64 << 20
"""Of them at most, but for a last block."""
BATCH_BLOCKS = 32
"""Of a file in which few posts are kept: whoever asks hears how far it is."""
SAID = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("post_id", pa.string()),
        *(SUBMISSIONS.field(name) for name in AS_SAID),
    ]
)
"""What a post says before its address is looked at."""
_NOTHING = pa.RecordBatch.from_pylist([], SAID)
NO_INTEGERS = (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError, ValueError)
"""What Arrow answers to a column that is not integers and nulls alone."""
NO_POST = {LeftOut.MALFORMED, LeftOut.TRUNCATED}


def read(part: Part, config: CrawlConfig, account: Account) -> Iterator[pa.RecordBatch]:
    """The submissions of one file, or part of one, after those that `account` has had.

    What yields no row is counted in `account.left_out` under one of `LeftOut`. Raises BadInput as
    `dumps.read` does, and where no line of the file is a submission.
    """
    some = account.place > 0
    held: list[pa.RecordBatch] = []
    for found in dumps.read(part, account, accept_truncated=config.accept_truncated):
        held.append(_columns(found, config, account.left_out))
        some = some or held[-1].num_rows > 0
        full = sum(map(len, held)) >= BATCH_ROWS
        if full or len(held) >= BATCH_BLOCKS or sum(one.nbytes for one in held) >= BATCH_BYTES:
            yield _rows(held, config, account.left_out)
            held = []
    yield _rows(held, config, account.left_out)
    if not some and not part.start and set(account.left_out) <= NO_POST:
        raise BadInput(
            f"{part.path}: is no dump: none of its lines is a submission, a JSON object with an id"
        )


def _columns(found: Posts, config: CrawlConfig, left_out: Counter[str]) -> pa.RecordBatch:
    """What posts say, as far as they say enough to be followed; the others are counted."""
    kept = _unmarked(found.rows, config, left_out)
    kept, texts = _addressed(kept, left_out)
    columns = [
        texts,
        _stems([post.id for post in kept]),
        _stems([post.crosspost_parent for post in kept]),
        _scores([post.score for post in kept]),
        _days([post.created_utc for post in kept]),
        pa.array([post.subreddit for post in kept], pa.string()),
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=SAID)
    # Longer than `url.fetch_url` takes: not to be held until then.
    short = pc.less_equal(pc.utf8_length(texts), MAX_CHARACTERS)
    batch = _kept(batch, short, LeftOut.BAD_URL, left_out)
    if found.scored:
        batch = _kept(batch, batch["score"].is_valid(), LeftOut.NO_SCORE, left_out)
    if found.dated:
        batch = _dated(batch, config, left_out)
    return batch


def _rows(
    held: Sequence[pa.RecordBatch], config: CrawlConfig, left_out: Counter[str]
) -> pa.RecordBatch:
    """The submissions of posts that may be followed, if they name a URL and are of the sample."""
    batch = pa.concat_batches(held) if held else _NOTHING
    if (again := repeats.copies(batch)) is not None:
        batch = _kept(batch, pa.array(~again), LeftOut.REPEATED, left_out)
    ids = keys.of(batch["text"])
    post_ids = batch["post_id"]
    if pc.any(pc.equal(post_ids, "")).as_py():
        post_ids = _named(post_ids, ids.link_id)
    columns = [*ids, post_ids, *(batch[field.name] for field in SAID if field.name in AS_SAID)]
    nullable = pa.schema([field.with_nullable(True) for field in SUBMISSIONS])
    rows = pa.RecordBatch.from_arrays(columns, schema=nullable)
    rows = _kept(rows, rows["link_id"].is_valid(), LeftOut.BAD_URL, left_out)
    if config.sample < 1:
        # of the half of the id that the domain has no part in: a sample of links, not of sites
        quarters = repeats.halves_of(pa.chunked_array([rows["link_id"]])).view(">u4")
        sampled = pa.array(quarters[:, 1] < int(config.sample * 2**32))
        rows = _kept(rows, sampled, LeftOut.NOT_SAMPLED, left_out)
    return rows.cast(SUBMISSIONS)


def _unmarked(found: Sequence[Post], config: CrawlConfig, left_out: Counter[str]) -> list[Post]:
    """The posts whose marks do not speak against them."""
    kept, marked = posts.divided(found)
    for post in marked:
        if reason := posts.reason(post, config):
            left_out[reason] += 1
        else:
            kept.append(post)
    if config.subreddits or config.refused_subreddits:
        wanted = {name.lower() for name in config.subreddits}
        refused = {name.lower() for name in config.refused_subreddits}
        named = [(post.subreddit or "").lower() for post in kept]
        chosen = [(not wanted or name in wanted) and name not in refused for name in named]
        left_out[LeftOut.SUBREDDIT] += len(kept) - sum(chosen)
        kept = [post for post, is_chosen in zip(kept, chosen, strict=True) if is_chosen]
    return kept


def _addressed(kept: list[Post], left_out: Counter[str]) -> tuple[list[Post], pa.Array]:
    """The posts that name an address, and what they name."""
    texts = [post.url for post in kept]
    column = pa.array(texts, pa.string())
    odd = pc.or_(pc.equal(column, ""), pc.starts_with(column, "/")).fill_null(True)
    places = np.flatnonzero(odd.to_numpy(zero_copy_only=False))
    if not len(places):
        return kept, column
    for place in places:
        found = posts.target(kept[place])
        texts[place] = None if isinstance(found, LeftOut) else found
        if isinstance(found, LeftOut):
            left_out[found] += 1
    named = [post for post, text in zip(kept, texts, strict=True) if text is not None]
    return named, pa.array([text for text in texts if text is not None], pa.string())


def _named(post_ids: pa.Array, links: pa.Array) -> pa.Array:
    """The ids of posts; a line of a list has none, and is its link's once and for all."""
    both = zip(post_ids.to_pylist(), links.to_pylist(), strict=True)
    return pa.array([name or (link and f"list-{link.hex()}") for name, link in both], pa.string())


def _stems(names: Sequence[str | None]) -> pa.Array:
    """Ids of posts, without the mark of their kind."""
    column = pa.array(names, pa.string())
    marked = pc.any(pc.starts_with(column, "t3_")).as_py()
    return pc.replace_substring_regex(column, "^t3_", "") if marked else column


def _scores(found: Sequence[int | float | str | None]) -> pa.Array:
    try:
        column = pa.array(found, pa.int64())
    except NO_INTEGERS:
        column = pa.array([_score(one) for one in found], pa.int64())
    return pc.min_element_wise(
        pc.max_element_wise(column, -INT32, skip_nulls=False), INT32 - 1, skip_nulls=False
    ).cast(pa.int32())


def _score(score: int | float | str | None) -> int | None:
    try:
        return int(max(-INT32, min(INT32 - 1, float(score)))) if score is not None else None
    except (ValueError, OverflowError):  # no number, not a number; one of hundreds of digits
        return None


def _days(found: Sequence[int | float | str | None]) -> pa.Array:
    """The days of moments in seconds since 1970; null where one is none that a date can hold."""
    try:
        column = pa.array(found, pa.int64())
    except NO_INTEGERS:
        column = pa.array([_second(one) for one in found], pa.int64())
    good = pc.and_(pc.greater_equal(column, 0), pc.less(column, LAST_SECOND))
    days = pc.divide(pc.if_else(good, column, None), DAY_S)
    return days.cast(pa.int32()).cast(pa.date32())


def _second(created: int | float | str | None) -> int | None:
    try:
        return int(max(-1.0, min(LAST_SECOND, float(created)))) if created is not None else None
    except (ValueError, OverflowError):  # no number, not a number; one of hundreds of digits
        return None


def _dated(batch: pa.RecordBatch, config: CrawlConfig, left_out: Counter[str]) -> pa.RecordBatch:
    """The posts of a day that counts."""
    batch = _kept(batch, batch["day"].is_valid(), LeftOut.NO_DATE, left_out)
    if config.until:
        early = pc.less_equal(batch["day"], config.until)
        batch = _kept(batch, early, LeftOut.AFTER_UNTIL, left_out)
    if config.since:
        late = pc.greater_equal(batch["day"], config.since)
        batch = _kept(batch, late, LeftOut.BEFORE_SINCE, left_out)
    return batch


def _kept(
    batch: pa.RecordBatch, mask: pa.Array, reason: LeftOut, left_out: Counter[str]
) -> pa.RecordBatch:
    """The rows that a mask lets through; the others are counted."""
    lost = len(mask) - (pc.sum(mask).as_py() or 0)
    if not lost:
        return batch
    left_out[reason] += lost
    return batch.filter(mask)
