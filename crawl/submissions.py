"""Reads a Reddit dump, or a plain list of URLs, into submissions that carry an outbound link.

Every line that is not blank becomes one row or one count under a named reason: none vanishes, and a
bad line never costs its neighbours. Scores are not judged here: a URL's karma needs all of them.
"""

import codecs
import datetime
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, Any

import msgspec
import pyarrow as pa

from crawl import streams, url
from crawl.config import CrawlConfig
from crawl.schema import SUBMISSIONS, BadInput, LeftOut

VERSION = 1

BATCH_ROWS = 16384
LOOK_AHEAD = 100
"""Lines by which a dump is told from a list of URLs: the first of them can be torn."""
MAX_LINE_BYTES = 64 * 1024 * 1024
EPOCH = datetime.date(1970, 1, 1).toordinal()
LAST_SECOND = 253402300800  # the year 10000, which no date can hold
INT32 = 2**31

Row = dict[str, Any]


class Removal(msgspec.Struct):
    """What Arctic Shift notes beside a post."""

    removal_type: Any = None


class Post(msgspec.Struct, rename={"meta": "_meta"}):
    """The fields that matter of a submission, as loosely typed as twenty years of dumps are."""

    id: str
    url: str | None = None
    url_overridden_by_dest: str | None = None
    score: int | float | None = None
    created_utc: int | float | str | None = None
    subreddit: str | None = None
    is_self: Any = None
    over_18: Any = None
    promoted: Any = None
    removed_by_category: Any = None
    meta: Removal | None = None


NO_POST = {LeftOut.MALFORMED, LeftOut.TRUNCATED}
# The last: brackets nested deeper than a reader goes.
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
DECODER = msgspec.json.Decoder(Post)


def read(path: str, config: CrawlConfig, left_out: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The submissions of one dump: zst (any window, any number of frames), xz, bz2, gz or plain.

    What yields no row is counted in `left_out` under one of `LeftOut`. Raises BadInput, naming the
    file, where it is missing, empty, damaged, neither a dump nor a list, without a line that is a
    submission, or ends too early (unless `config.accept_truncated`).
    """
    with streams.open_decoded(path) as stream:
        lines = _whole_lines(path, stream, config, left_out)
        first = list(itertools.islice(lines, LOOK_AHEAD))
        turn = _from_url if _is_list(path, first) else _from_json
        rows = _rows(turn, itertools.chain(first, lines), config, left_out)
        some = False
        for batch in _batches(rows):
            some = True
            yield batch
    if not some and set(left_out) <= NO_POST:
        raise BadInput(
            f"{path}: is no dump: none of its lines is a submission, a JSON object with an id"
        )


def _whole_lines(
    path: str, stream: IO[bytes], config: CrawlConfig, left_out: Counter[str]
) -> Iterator[bytes]:
    try:
        for line in _lines(stream):
            if line := line.strip():
                yield line
    except EOFError as error:
        if not config.accept_truncated:
            raise BadInput(
                f"{path}: ends too early; set crawl.accept_truncated = true to take what it holds"
            ) from error
        left_out[str(LeftOut.TRUNCATED)] += 1
    except streams.DAMAGE as error:
        if isinstance(error, OSError) and error.errno:  # the disk's or the network's own
            raise
        raise BadInput(f"{path}: is damaged: {error}") from error


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of bounded length; one that is longer comes in pieces, none of which is JSON."""
    # `read` would throw away what it has already decoded where the file breaks off.
    read = getattr(stream, "read1", stream.read)
    mark = stream.read(len(codecs.BOM_UTF8))
    pieces = [] if mark == codecs.BOM_UTF8 else [mark]
    held = 0
    while chunk := read(streams.CHUNK * 8):
        pieces.append(chunk)
        held += len(chunk)
        if b"\n" in chunk:  # joined only now: a long line would be copied with every piece of it
            *whole, last = b"".join(pieces).split(b"\n")
            yield from whole
            pieces, held = [last], len(last)
        if held > MAX_LINE_BYTES:
            yield b"".join(pieces)
            pieces, held = [], 0
    yield b"".join(pieces)


def _is_list(path: str, lines: list[bytes]) -> bool:
    objects = sum(map(_is_object, lines))
    addresses = sum(url.fetch_url(line.decode("utf-8", "replace")) is not None for line in lines)
    if objects or addresses:
        return addresses > objects
    if any(line.startswith(b"{") for line in lines):
        return False  # a dump of which every line is damaged
    raise BadInput(f"{path}: holds neither submissions (one JSON object a line) nor URLs")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except NO_JSON:
        return False


def _rows(
    turn: Callable[[bytes, CrawlConfig], Row | LeftOut],
    lines: Iterator[bytes],
    config: CrawlConfig,
    left_out: Counter[str],
) -> Iterator[Row]:
    most = int(config.sample * 2**32)
    for line in lines:
        row = turn(line, config)
        if isinstance(row, LeftOut):
            left_out[str(row)] += 1
        # the half of the id that the domain has no part in: a sample of links, not of sites
        elif int.from_bytes(row["link_id"][4:8]) >= most:
            left_out[str(LeftOut.NOT_SAMPLED)] += 1
        else:
            yield row


def _from_url(line: bytes, config: CrawlConfig) -> Row | LeftOut:
    asked = url.fetch_url(line.decode("utf-8", "replace"))
    if asked is None:
        return LeftOut.BAD_URL
    row = _link(asked)
    name = hashlib.blake2b(row["url_key"].encode(), digest_size=8).hexdigest()
    return row | {"post_id": f"list-{name}", "score": None, "day": None, "subreddit": None}


def _from_json(line: bytes, config: CrawlConfig) -> Row | LeftOut:
    try:
        post = DECODER.decode(line)
    except NO_JSON:
        return LeftOut.MALFORMED
    if reason := _reason(post, config):
        return reason
    target = _target(post)
    if isinstance(target, LeftOut):
        return target
    if post.score is None:
        return LeftOut.NO_SCORE
    day = _day(post.created_utc)
    if day is None:
        return LeftOut.NO_DATE
    if config.until and day > config.until:
        return LeftOut.AFTER_UNTIL
    return _link(target) | {
        "post_id": post.id.removeprefix("t3_"),
        "score": max(-INT32, min(INT32 - 1, int(post.score))),
        "day": day,
        "subreddit": post.subreddit,
    }


def _reason(post: Post, config: CrawlConfig) -> LeftOut | None:
    if post.promoted:
        return LeftOut.PROMOTED
    if post.is_self:
        return LeftOut.SELF
    if post.removed_by_category or (post.meta and post.meta.removal_type):
        return LeftOut.REMOVED
    if post.over_18 and not config.over_18:
        return LeftOut.OVER_18
    return None


def _target(post: Post) -> str | LeftOut:
    """What the post links to. A crosspost's own URL can be relative: it names its parent."""
    text = post.url
    if not text or text.startswith("/"):
        text = post.url_overridden_by_dest or text
    if not text:
        return LeftOut.NO_URL
    if text.startswith("/"):
        return LeftOut.RELATIVE_URL
    return url.fetch_url(text) or LeftOut.BAD_URL


def _day(created: int | float | str | None) -> datetime.date | None:
    try:
        seconds = float(created) if created is not None else -1.0
    except (ValueError, OverflowError):  # the second: of hundreds of digits
        return None
    if not 0 <= seconds < LAST_SECOND:
        return None
    return datetime.date.fromordinal(EPOCH + int(seconds) // 86400)


def _link(asked: str) -> Row:
    key = url.url_key(asked)
    return {
        "link_id": url.link_id(key),
        "url_key": key,
        "fetch_url": asked,
        "host": url.host(asked),
    }


def _batches(rows: Iterator[Row]) -> Iterator[pa.RecordBatch]:
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        yield pa.RecordBatch.from_pylist(batch, SUBMISSIONS)
