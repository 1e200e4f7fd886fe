"""Reddit's submissions as twenty years of dumps hold them, and why one carries no link to follow.

Fields are as loosely typed as they were written: what cannot be told from one of them is a reason,
never an exception. The author's name is not among them.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from crawl.account import Account, fault
from crawl.config import CrawlConfig
from crawl.lines import Block
from crawl.schema import LeftOut
from crawl.streams import Part


class Post(msgspec.Struct, gc=False, rename={"meta": "_meta"}):
    """The fields that matter of a submission."""

    id: str
    url: str | None = None
    url_overridden_by_dest: str | None = None
    score: int | float | str | None = None
    created_utc: int | float | str | None = None
    subreddit: str | None = None
    crosspost_parent: str | None = None
    is_self: Any = None
    over_18: Any = None
    promoted: Any = None
    removed_by_category: Any = None
    is_gallery: Any = None
    is_video: Any = None
    is_reddit_media_domain: Any = None
    meta: Any = None


class Posts(NamedTuple):
    """Some posts of a file that holds their scores and dates, or does not."""

    rows: list[Post]
    scored: bool = True
    """False: a list that vouches for its URLs; they count as `min_karma`."""
    dated: bool = True


# The last: brackets nested deeper than a reader goes.
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
DECODER = msgspec.json.Decoder(Post)
NEW_LINE, OPEN, CLOSE = b"\n{}"
BY_ITS_AUTHOR = frozenset({"deleted", "author"})


def decoded(block: Block, part: Part, account: Account) -> list[Post]:
    """The posts of a block's lines; a line that is none is a fault, and costs no neighbour."""
    if not block.whole:
        fault(account, place_of(block, part), LeftOut.MALFORMED)
        return []
    return _at_once(block.lines) or _one_by_one(block, part, account)


def place_of(block: Block, part: Part, further: int = 0) -> str:
    """The file, and the byte of its content so far into a block."""
    cut = f"from byte {part.start:,} on, decoded " if part.start else ""
    return f"{part.path}: {cut}byte {block.place + further:,}"


def _at_once(lines: memoryview) -> list[Post] | None:
    """The posts, where every line is surely one: a line that ends with a brace and is followed by
    one cannot go on in the next, so as many posts as lines are one a line."""
    signs = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero(signs == NEW_LINE)
    if not len(ends) or ends[0] == 0 or signs[0] != OPEN or ends[-1] + 1 != len(signs):
        return None
    if (signs[ends - 1] != CLOSE).any() or (signs[ends[:-1] + 1] != OPEN).any():
        return None
    try:
        posts = DECODER.decode_lines(lines)
    except NO_JSON:
        return None
    return posts if len(posts) == len(ends) else None


def _one_by_one(block: Block, part: Part, account: Account) -> list[Post]:
    posts = []
    place = 0
    for line in bytes(block.lines).split(b"\n"):
        if line.strip():
            try:
                posts.append(DECODER.decode(line.strip()))
            except NO_JSON:
                fault(account, place_of(block, part, place), LeftOut.MALFORMED)
        place += len(line) + 1
    return posts


def divided(posts: Iterable[Post]) -> tuple[list[Post], list[Post]]:
    """Posts of which no mark speaks against them, and the others: the quick look at all."""
    plain: list[Post] = []
    marked: list[Post] = []
    for post in posts:
        if (
            post.is_self
            or post.over_18
            or post.is_video
            or post.removed_by_category
            or post.is_reddit_media_domain
            or post.promoted
            or post.is_gallery
            or post.meta
        ):
            marked.append(post)
        else:
            plain.append(post)
    return plain, marked


def reason(post: Post, config: CrawlConfig) -> LeftOut | None:
    """Why, by its marks, a post carries no link to follow."""
    if post.promoted:
        return LeftOut.PROMOTED
    if post.is_self:
        return LeftOut.SELF
    meta = post.meta if isinstance(post.meta, dict) else {}
    removal = post.removed_by_category or meta.get("removal_type")
    if removal:
        return LeftOut.DELETED if removal in BY_ITS_AUTHOR else LeftOut.REMOVED
    if post.over_18 and not config.over_18:
        return LeftOut.OVER_18
    if post.is_gallery:
        return LeftOut.GALLERY
    if post.is_video or post.is_reddit_media_domain:
        return LeftOut.REDDIT_MEDIA
    return None


def target(post: Post) -> str | LeftOut:
    """What the post links to. A crosspost's own URL can be relative: it names its parent."""
    text = post.url
    if not text or text.startswith("/"):
        text = post.url_overridden_by_dest or text
    if not text:
        return LeftOut.NO_URL
    return LeftOut.RELATIVE_URL if text.startswith("/") else text
