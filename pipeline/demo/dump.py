"""A dump of submissions in Pushshift's true form that links to the embedded web, quirks included.

One JSON object a line, in the order of time, in one zstd frame with a window of 2^31 bytes and no
content size, as the monthly files of 2012 to 2017 were published. Rule: a function of the site and
the seed; the same two give the same bytes.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zstandard

from pipeline.demo.answers import Site

WINDOW_LOG = 31
"""Readers must allow a window of 2 GiB, as the real dumps ask for."""
MALFORMED = '{"id":"torn1","score":12,"title":"a line that was cut in the mid'

Record = dict[str, Any]

_FIRST_DAY = int(datetime(2012, 1, 1, tzinfo=UTC).timestamp())
_LAST_DAY = int(datetime(2017, 12, 31, tzinfo=UTC).timestamp())
_STRING_DATES = range(
    int(datetime(2014, 1, 1, tzinfo=UTC).timestamp()),
    int(datetime(2015, 12, 1, tzinfo=UTC).timestamp()),
)
"""Months whose dumps have `created_utc` as a string."""
_NEW_FIELDS = int(datetime(2017, 1, 1, tzinfo=UTC).timestamp())
_SUBREDDITS = ("programming", "Python", "linux", "technology", "books", "TrueReddit", "DepthHub")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def write(site: Site, path: Path, seed: int) -> int:
    """Write the dump; the number of its lines, the malformed one included."""
    lines = [json.dumps(one, separators=(",", ":")) for one in records(site, seed)]
    lines.insert(len(lines) // 2, MALFORMED)
    settings = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=WINDOW_LOG, write_content_size=False, write_checksum=True
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with (
        temporary.open("wb") as file,
        zstandard.ZstdCompressor(compression_params=settings).stream_writer(file) as writer,
    ):
        for line in lines:
            writer.write(line.encode() + b"\n")
    temporary.replace(path)
    return len(lines)


def records(site: Site, seed: int) -> list[Record]:
    """Every submission in the order of time: those of the site's pages and all between."""
    chance = random.Random(seed)
    wanted = [*_of_pages(site, chance), *_beside(site, chance)]
    chance.shuffle(wanted)
    times = sorted(chance.randrange(_FIRST_DAY, _LAST_DAY) for _ in wanted)
    first = 0x2000000 + seed % 1000
    return [
        _record(_base36(first + 37 * place), when, post, chance)
        for place, (when, post) in enumerate(zip(times, wanted, strict=True))
    ]


def _of_pages(site: Site, chance: random.Random) -> Iterator[Record]:
    """One to three submissions for each page, the first often spelt as the site itself does."""
    for url, fate in site.fates().items():
        count = chance.choices((1, 2, 3), (75, 18, 7))[0]
        for place, score in enumerate(_scores(chance, count, loved=fate != "text")):
            spelling = url if place == 0 and chance.random() < 0.6 else _spelling(url, chance)
            yield {"url": spelling, "score": score}


def _scores(chance: random.Random, count: int, loved: bool) -> list[int]:
    """Karma of a page's submissions. One readable page in seven has less than 3 in all.

    Pages that must be asked for (`loved`) have a submission of 3 or more, so that no karma rule
    loses them.
    """
    if not loved and chance.random() < 1 / 7:
        return [chance.randrange(3), *[0] * (count - 1)]
    if not loved and count > 1 and chance.random() < 1 / 4:
        return [2] * count  # enough by the sum, not by any single submission
    return [
        min(20_000, 2 + int(chance.paretovariate(0.9))),
        *(chance.randrange(3) for _ in range(count - 1)),
    ]


def _spelling(url: str, chance: random.Random) -> str:
    """The same page's address, written otherwise: all of these have one canonical form."""
    parts = urlsplit(url)
    joint = "&amp;" if parts.query else "?"
    bare = parts.netloc.removeprefix("www.")
    ways: list[Callable[[], str]] = [
        lambda: url.replace(parts.netloc, bare if bare != parts.netloc else f"www.{bare}", 1),
        lambda: f"{url}#part-{chance.randrange(1, 9)}",
        lambda: f"{url}{joint}utm_source=newsletter&amp;utm_medium=mail",
        lambda: url.replace(parts.netloc, parts.netloc.upper(), 1),
    ]
    if not parts.query and "." not in parts.path:
        ways.append(lambda: url.rstrip("/") if url.endswith("/") else f"{url}/")
    return chance.choice(ways)()


def _beside(site: Site, chance: random.Random) -> Iterator[Record]:
    """What a dump holds beside usable links: each kind in its share of the pages, at least six."""
    urls = [url for url, fate in site.fates().items() if fate == "text"]
    for make, share in _KINDS.items():
        for number in range(max(6, int(len(urls) * share))):
            yield make(number, urls[chance.randrange(len(urls))])


def _self_post(number: int, url: str) -> Record:
    text = f"I keep reading [this]({url}) and wonder what you make of it."
    return {"is_self": True, "selftext": text, "score": 1 + number % 90, "url": None}


def _picture(number: int, url: str) -> Record:
    del url
    return {"url": f"https://i.imgur.com/{_base36(900_000 + number)}.jpg", "score": 40 + number}


def _film(number: int, url: str) -> Record:
    del url
    return {"url": f"https://www.youtube.com/watch?v={_base36(70_000_000 + number)}", "score": 9}


def _internal(number: int, url: str) -> Record:
    del url
    thread = _base36(40_000_000 + number)
    return {"url": f"https://np.reddit.com/r/books/comments/{thread}/", "score": 15}


def _crosspost(number: int, url: str) -> Record:
    del url
    thread = _base36(50_000_000 + number)
    parent = {"crosspost_parent": f"t3_{thread}", "num_crossposts": 0}
    return {"url": f"/r/linux/comments/{thread}/", "score": 5, **parent}


def _not_safe(number: int, url: str) -> Record:
    return {"url": f"{url}#nsfw{number}", "score": 60, "over_18": True}


def _no_score(number: int, url: str) -> Record:
    del number
    return {"url": url, "score": None}


def _no_url(number: int, url: str) -> Record:
    del url
    return {"url": None, "score": 3 + number, "domain": None}


def _removed(number: int, url: str) -> Record:
    del number
    gone = {"author": "[deleted]", "removed_by_category": "moderator", "selftext": "[removed]"}
    return {"url": url, "score": 8, **gone}


def _taken_back(number: int, url: str) -> Record:
    return {"url": url, "score": 4 + number, "author": "[deleted]", "removed_by_category": "author"}


def _advertisement(number: int, url: str) -> Record:
    return {"url": url, "score": 0, "promoted": True, "subreddit": None, "title": f"Buy {number}!"}


def _no_page(number: int, url: str) -> Record:
    """Addresses that are refused for what they are."""
    host = urlsplit(url).netloc
    kinds = (
        f"http://{host}/files/archive-{number}.zip",
        f"http://reader:secret@{host}/{number}",
        f"http://10.0.0.{1 + number % 250}/admin",
        f"http://{host}/{'long-' * 600}{number}",
        f"ftp://{host}/pub/{number}",
        "javascript:void(0)",
    )
    return {"url": kinds[number % len(kinds)], "score": 7}


_KINDS: Mapping[Callable[[int, str], Record], float] = {
    _self_post: 0.25,
    _picture: 0.10,
    _film: 0.04,
    _internal: 0.03,
    _crosspost: 0.01,
    _not_safe: 0.02,
    _no_score: 0.005,
    _no_url: 0.003,
    _removed: 0.01,
    _taken_back: 0.005,
    _advertisement: 0.004,
    _no_page: 0.02,
}


def _record(name: str, when: int, post: Record, chance: random.Random) -> Record:
    """The whole record as the dumps of its time have it."""
    group = chance.choice(_SUBREDDITS)
    title = post.get("title", f"Worth a read &amp; a thought, no. {name}")
    where = f"/r/{group}/comments/{name}/worth_a_read/"
    record: Record = {
        "archived": True,
        "author": f"reader{chance.randrange(400)}",
        "created": when + 28_800,
        "created_utc": str(when) if when in _STRING_DATES else when,
        "distinguished": None,
        "domain": f"self.{group}" if post.get("is_self") else urlsplit(post["url"] or "").netloc,
        "downs": 0,
        "edited": False,
        "gilded": 0,
        "hide_score": False,
        "id": name,
        "is_self": False,
        "link_flair_text": None,
        "media": None,
        "media_embed": {},
        "name": f"t3_{name}",
        "num_comments": chance.randrange(60),
        "over_18": False,
        "permalink": where,
        "quarantine": False,
        "retrieved_on": when + 2_592_000,
        "saved": False,
        "secure_media": None,
        "selftext": "",
        "stickied": False,
        "subreddit": group,
        "subreddit_id": f"t5_2q{group[:3].lower()}",
        "thumbnail": "default",
        "title": title,
        "ups": post["score"],
    }
    if when >= _NEW_FIELDS:
        record |= {"is_video": False, "spoiler": False, "locked": False, "brand_safe": True}
        record |= {"contest_mode": False, "suggested_sort": None, "num_crossposts": 0}
    record |= post
    if post.get("is_self"):
        record["url"] = f"https://www.reddit.com{where}"
    if post.get("promoted"):
        del record["subreddit"], record["subreddit_id"]
    return record


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
