"""A whole run made up from a seed, without crawling: ten small datasets that agree with each
other."""

import itertools
import json
import random
from collections import Counter
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from crawl import schema as crawled
from dedup import schema as deduped
from pipeline.manifest import Manifest, Written
from pipeline.store import Dataset
from training import schema as trained

HOSTILE = "<script>alert('title')</script>"
HOSTILE_TEXT = '</pre></section><script>alert("text")</script><img src=x onerror=alert(1)> & so on'
HOSTILE_URL = "http://evil.test/\"><script>alert('url')</script>"
SETTINGS = {
    "corpus": {"corpus.min_words": 50, "corpus.max_words": 9000, "corpus.min_language_score": 0.5},
    "duplicates": {"dedup.threshold": 0.8},
    "links": {"crawl.min_karma": 3, "crawl.karma_rule": "sum"},
}
FAULTS = [f"{HOSTILE}: byte 7: malformed", *(f"RS: byte {n:,}: malformed" for n in range(8, 38))]
POSTS = (1, 2, 1, 3, 12, 1, 7)
"""Of one link after another; the second has more than a hundred."""

Rows = list[dict[str, Any]]


def make(root: Path, links: int = 60, seed: int = 1) -> dict[str, Dataset]:
    """Write the run under `root`; the first document kept is hostile to careless HTML."""
    chance = random.Random(seed)
    rows = _crawled(links, chance)
    rows |= _curated(rows, chance)
    counted = {
        "links": ("outcome",),
        "pages": ("outcome", "source"),
        "documents": ("outcome",),
        "signals": ("language",),
        "corpus": ("verdict", "rule", "split"),
        "tokens": ("split",),
    }
    schemas = {
        "submissions": crawled.SUBMISSIONS,
        "links": crawled.LINKS,
        "pages": crawled.PAGES,
        "documents": crawled.DOCUMENTS,
        "signals": crawled.SIGNALS,
        "signatures": deduped.SIGNATURES,
        "pairs": deduped.PAIRS,
        "duplicates": deduped.DUPLICATES,
        "corpus": deduped.CORPUS,
        "tokens": trained.INDEX,
    }
    left_out = {"submissions": {"self": links // 2, "malformed": len(FAULTS), "truncated": 1}}
    return {
        name: _write(root, name, schema, rows[name], counted.get(name, ()), left_out.get(name, {}))
        for name, schema in schemas.items()
    }


def _write(
    root: Path,
    name: str,
    schema: pa.Schema,
    rows: Rows,
    counted: tuple[str, ...],
    left_out: dict[str, int],
) -> Dataset:
    mark = blake2b(name.encode(), digest_size=8).hexdigest()
    folder = root / name / mark
    folder.mkdir(parents=True)
    half = len(rows) // 2
    for shard, part in enumerate((rows[:half], rows[half:])):
        pq.write_table(pa.Table.from_pylist(part, schema), folder / f"{shard:05d}.parquet")
    manifest = Manifest(
        dataset=name,
        fingerprint=mark,
        shards=2,
        scattered=False,
        rows=len(rows),
        bytes=sum(path.stat().st_size for path in folder.glob("*.parquet")),
        set_hash=blake2b(repr(rows).encode(), digest_size=16).hexdigest(),
        counts={
            column: dict(
                sorted(Counter(str(row[column]) for row in rows if row[column] is not None).items())
            )
            for column in counted
        },
        left_out=left_out,
        faults=FAULTS if "malformed" in left_out else [],
        files=[Written(name=f"{shard:05d}.parquet", bytes=1, digest="") for shard in range(2)],
        seconds=1.5,
        tasks=2,
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    begun = {"settings": SETTINGS.get(name, {}), "libraries": {"lxml": "6.0"}, "version": 1}
    (folder / "begun.json").write_text(json.dumps(begun))
    return Dataset(name, mark, folder, 2)


def _id(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


def _crawled(count: int, chance: random.Random) -> dict[str, Rows]:
    rows: dict[str, Rows] = {"submissions": [], "links": [], "pages": []}
    for number in range(count):
        under = ("www", "blog", "shop")[number % 3]
        host = f"{under}.host-{int(chance.paretovariate(0.6)) % 40}.test"
        url = HOSTILE_URL if number == 0 else f"http://{host}/page-{number}"
        key = {"link_id": _id(url), "url_key": url, "fetch_url": url, "host": host}
        karma = 5 if number == 0 else int(chance.paretovariate(0.7)) - 1
        posted = date(2012 + number % 6, 1 + number % 12, 1 + number % 28)
        outcome = "kept" if karma >= 3 else ("below_karma", "media", "file_type")[number % 3]
        posts = [f"p{number}-{n}" for n in range(120 if number == 1 else POSTS[number % 7])]
        for post in posts:
            rows["submissions"].append(
                {**key, "post_id": post, "score": karma, "day": posted} | {"subreddit": "books"}
            )
        rows["links"].append(
            {**key, "karma": karma, "submissions": posts, "subreddits": ["books"]}
            | {"first_seen": posted, "outcome": outcome}
        )
        if outcome == "kept":
            fate = "ok" if number == 0 or chance.random() < 0.85 else "http_error"
            rows["pages"].append(
                {"link_id": key["link_id"], "url": url, "outcome": fate, "source": "live"}
                | {"status": 200 if fate == "ok" else 404, "bytes": 800 + chance.randrange(90_000)}
            )
    for name, column in (("links", "link_id"), ("pages", "link_id")):
        rows[name].sort(key=lambda row: row[column])
    return rows


def _curated(crawl: dict[str, Rows], chance: random.Random) -> dict[str, Rows]:
    names = ["documents", "signals", "signatures", "pairs", "duplicates", "corpus", "tokens"]
    rows: dict[str, Rows] = {name: [] for name in names}
    start = 0
    for page in crawl["pages"]:
        identifier, url = page["link_id"], page["url"]
        if page["outcome"] != "ok":
            rows["documents"].append({"document_id": identifier, "url": url, "outcome": "no_page"})
            continue
        hostile = url == HOSTILE_URL
        words = 900 if hostile else int(chance.lognormvariate(5.5, 1))
        text = HOSTILE_TEXT if hostile else "word " * words
        rows["documents"].append(
            {"document_id": identifier, "url": url, "outcome": "ok", "text": text}
            | {"title": HOSTILE if hostile else f"Page {url[-6:]}", "extractor": "made"}
        )
        rows["signals"].append(_signals(identifier, words, chance))
        short = words < 50
        rows["corpus"].append(
            {"document_id": identifier, "url": url, "verdict": "dropped" if short else "kept"}
            | {"rule": "min_words" if short else None, "rules": ["min_words"] if short else []}
            | {"split": None if short else "train"}
        )
        if not short:
            rows["tokens"].append(
                {"document_id": identifier, "url": url, "split": "train"}
                | {"start": start, "length": words + 1}
            )
            start += words + 1
    _twins(rows, chance)
    return rows


def _signals(identifier: bytes, words: int, chance: random.Random) -> dict[str, Any]:
    row: dict[str, Any] = {"document_id": identifier, "words": words, "characters": 6 * words}
    row |= {"lines": 1 + words // 9, "language": "en" if chance.random() < 0.95 else "de"}
    row["language_score"] = chance.uniform(0.4, 1)
    row["mean_word_length"] = chance.gauss(5, 0.5)
    shares = [name for name in crawled.SIGNALS.names if name.endswith("_share")]
    return row | {name: chance.betavariate(2, 9) for name in shares}


def _twins(rows: dict[str, Rows], chance: random.Random) -> None:
    """Every tenth document of the corpus is a twin of the one before it; the hostile one has a
    twin."""
    kept = [row for row in rows["corpus"] if row["verdict"] == "kept"]
    kept.sort(key=lambda row: row["url"] != HOSTILE_URL)
    for keeper, twin in list(itertools.pairwise(kept))[::10]:
        a, b = sorted((keeper["document_id"], twin["document_id"]))
        likeness = chance.uniform(0.8, 1)
        rows["pairs"].append(
            {"a": a, "b": b, "jaccard": likeness, "a_shingles": 90, "b_shingles": 91}
        )
        for one, with_ in ((keeper, None), (twin, keeper["document_id"])):
            rows["duplicates"].append(
                {"document_id": one["document_id"], "cluster_id": a, "keeper_id": with_}
                | {"jaccard": likeness if with_ else None}
            )
        if twin["url"] != HOSTILE_URL:
            gone = twin["document_id"]
            twin |= {"verdict": "dropped", "rule": "duplicate", "split": None}
            twin["rules"] = ["duplicate"]
            rows["tokens"] = [row for row in rows["tokens"] if row["document_id"] != gone]
