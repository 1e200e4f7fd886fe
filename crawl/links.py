"""Merges submissions into links: one row per `link_id`, with its karma and one outcome.

The result is a function of the set of submissions: neither their order nor a dump read twice
changes a byte.
"""

import datetime
import functools
import itertools
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from crawl import url
from crawl.config import CrawlConfig
from crawl.schema import LINKS, SUBMISSIONS, LinkOutcome

VERSION = 2

BATCH_ROWS = 16384
MAX_URL_CHARACTERS = 2048
"""Longer ones are refused by servers (RFC 9110 asks for 8,000; many stop at 2,048) or are data."""
DOMAIN_FILE = Path(__file__).with_name("refused_domains.txt")
FILE_TYPES = frozenset(
    [
        *("jpg", "jpeg", "jpe", "png", "gif", "gifv", "webp", "bmp", "svg", "ico", "tif", "tiff"),
        *("psd", "heic", "avif", "mp3", "mp4", "m4a", "m4v", "ogg", "ogv", "oga", "opus", "wav"),
        *("flac", "aac", "wma", "avi", "mov", "mpg", "mpeg", "wmv", "mkv", "webm", "flv", "swf"),
        *("pdf", "ps", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "odt", "epub", "mobi", "csv"),
        *("zip", "gz", "tgz", "bz2", "xz", "7z", "rar", "tar", "jar", "apk", "exe", "msi", "dmg"),
        *("iso", "deb", "rpm", "bin", "torrent", "ttf", "woff", "css", "js", "json", "xml", "rss"),
    ]
)

Row = dict[str, Any]


def merge(submissions: Iterable[pa.RecordBatch], config: CrawlConfig) -> Iterator[pa.RecordBatch]:
    """The links of all submissions of one range of ids, sorted by id, in one batch after another.

    A post counts once, however often it comes. `fetch_url` is the one of the post with the highest
    score, among these the earliest, then the one with the smallest id.
    """
    table = pa.Table.from_batches(list(submissions), SUBMISSIONS)
    # The score of a post that stands in two dumps is the highest seen. The rest makes it total.
    table = table.sort_by(
        [
            ("link_id", "ascending"),
            ("post_id", "ascending"),
            ("score", "descending"),
            ("day", "ascending"),
            ("fetch_url", "ascending"),
            ("subreddit", "ascending"),
        ]
    )
    rows = (row for batch in table.to_batches(BATCH_ROWS) for row in batch.to_pylist())
    links = (
        _link(list(posts), config) for _, posts in itertools.groupby(rows, itemgetter("link_id"))
    )
    while batch := list(itertools.islice(links, BATCH_ROWS)):
        yield pa.RecordBatch.from_pylist(batch, LINKS)


def refusal(fetch_url: str, config: CrawlConfig) -> LinkOutcome | None:
    """Why a URL is not followed, whatever its karma; None where nothing speaks against it."""
    name = url.host(fetch_url)
    if len(fetch_url) > MAX_URL_CHARACTERS:
        return LinkOutcome.OVER_LONG
    if url.has_credentials(fetch_url):
        return LinkOutcome.CREDENTIALS
    if url.is_private(name):
        return LinkOutcome.PRIVATE_HOST
    if reason := _domain_reason(name, config):
        return reason
    _, dot, ending = url.path(fetch_url).rpartition("/")[2].rpartition(".")
    if dot and ending.lower() in FILE_TYPES:
        return LinkOutcome.FILE_TYPE
    return None


def _link(posts: list[Row], config: CrawlConfig) -> Row:
    posts = [next(same) for _, same in itertools.groupby(posts, itemgetter("post_id"))]
    scores = [config.min_karma if post["score"] is None else post["score"] for post in posts]
    karma = sum(scores) if config.karma_rule == "sum" else max(scores)
    _, _, _, best = min(
        (-score, post["day"] or datetime.date.max, post["post_id"], post)
        for score, post in zip(scores, posts, strict=True)
    )
    days = [post["day"] for post in posts if post["day"]]
    below = LinkOutcome.BELOW_KARMA if karma < config.min_karma else None
    return {
        "link_id": best["link_id"],
        "url_key": best["url_key"],
        "fetch_url": best["fetch_url"],
        "host": best["host"],
        "karma": karma,
        "submissions": [post["post_id"] for post in posts],
        "subreddits": sorted({post["subreddit"] for post in posts if post["subreddit"]}),
        "first_seen": min(days, default=None),
        "outcome": below or refusal(best["fetch_url"], config) or LinkOutcome.KEPT,
    }


def _domain_reason(name: str, config: CrawlConfig) -> LinkOutcome | None:
    labels = name.split(".")
    for start in range(len(labels)):
        domain = ".".join(labels[start:])
        if domain in config.followed_domains:
            return None
        if domain in config.refused_domains:
            return LinkOutcome.REFUSED_DOMAIN
        if reason := _listed().get(domain):
            return reason
    return None


@functools.cache
def _listed() -> dict[str, LinkOutcome]:
    lines = DOMAIN_FILE.read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {domain: LinkOutcome(reason) for domain, reason in pairs}
