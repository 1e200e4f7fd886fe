"""A story in miniature with every shape of stage: map over files, by range, shuffle, lookup,
gather, join.

Words of text files are counted; words that share a first letter are paired; the commonest of each
pair wins. What it computes is simple enough to be known by heart; the machinery is the real one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.leaves import Leaf, digest
from pipeline.stage import Account, Stage, Step

ID = pa.binary(16)
WORDS = pa.schema([("id", ID), ("word", pa.string())])
COUNTS = pa.schema(
    [("id", ID), ("word", pa.string()), ("count", pa.int64()), ("kind", pa.string())]
)
LETTERS = pa.schema([("letter", pa.binary(4)), ("id", ID)])
PAIRS = pa.schema([("a", ID), ("b", ID), ("sum", pa.int64())])
LOSERS = pa.schema([("id", ID), ("beaten_by", ID)])
VERDICTS = pa.schema([("id", ID), ("word", pa.string()), ("wins", pa.bool_()), ("pid", pa.int64())])


def identify(word: str) -> bytes:
    return blake2b(word.encode(), digest_size=16).digest()


def read(path: str, account: Account) -> Iterator[pa.RecordBatch]:
    for line in Path(path).read_text().splitlines():
        if line.startswith("#"):
            account.left_out["comment"] += 1
            continue
        rows = [{"id": identify(word), "word": word} for word in line.split()]
        yield pa.RecordBatch.from_pylist(rows, WORDS)


def count(words: Iterable[pa.RecordBatch], least: int) -> Iterator[pa.RecordBatch]:
    counts = Counter(word for batch in words for word in batch["word"].to_pylist())
    if "explode" in counts:
        raise RuntimeError("a word exploded")
    rows = [
        {"id": identify(w), "word": w, "count": n, "kind": "often" if n >= least else "rare"}
        for w, n in counts.items()
    ]
    yield pa.RecordBatch.from_pylist(sorted(rows, key=lambda row: row["id"]), COUNTS)


def letters(counts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in counts:
        rows = [{"letter": identify(r["word"][0])[:4], "id": r["id"]} for r in batch.to_pylist()]
        yield pa.RecordBatch.from_pylist(rows, LETTERS)


def pair(partition: Iterable[pa.RecordBatch], counts: Any) -> Iterator[pa.RecordBatch]:
    by_letter: dict[bytes, list[bytes]] = {}
    for batch in partition:
        for row in batch.to_pylist():
            by_letter.setdefault(row["letter"], []).append(row["id"])
    known = {
        row["id"]: row["count"]
        for row in counts(
            [i for few in by_letter.values() for i in few], ["id", "count"]
        ).to_pylist()
    }
    rows = [
        {"a": a, "b": b, "sum": known[a] + known[b]}
        for few in by_letter.values()
        for a in sorted(few)
        for b in sorted(few)
        if a < b
    ]
    yield pa.RecordBatch.from_pylist(rows, PAIRS)


def losers(pairs: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    beaten: dict[bytes, bytes] = {}
    for batch in pairs:
        for row in batch.to_pylist():
            beaten[row["b"]] = min(row["a"], beaten.get(row["b"], row["a"]))
    rows = [{"id": b, "beaten_by": a} for b, a in sorted(beaten.items())]
    yield pa.RecordBatch.from_pylist(rows, LOSERS)


def judge(
    counts: Iterable[pa.RecordBatch], lost: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    import os

    beaten = {i for batch in lost for i in batch["id"].to_pylist()}
    for batch in counts:
        rows = [
            {"id": r["id"], "word": r["word"], "wins": r["id"] not in beaten, "pid": os.getpid()}
            for r in batch.to_pylist()
        ]
        yield pa.RecordBatch.from_pylist(rows, VERDICTS)


def plan(files: Iterable[Path], root: Path, settings: Mapping[str, Any]) -> tuple[Stage, ...]:
    root.mkdir(parents=True, exist_ok=True)
    found: list[Leaf] = digest([str(file) for file in files], root / "leaves.json")
    return (
        Stage(
            makes="words",
            version=1,
            main=Step(
                run=read,
                schema=WORDS,
                over=tuple(f.item for f in found),
                scatter="id",
                accounts=True,
            ),
            leaves=tuple(f.digest for f in found),
        ),
        Stage(
            makes="counts",
            version=1,
            main=Step(run=partial(count, least=settings["least"]), schema=COUNTS, each=("words",)),
            settings=settings,
            counted=("kind",),
        ),
        Stage(
            makes="pairs",
            version=1,
            before=(Step(run=letters, schema=LETTERS, each=("counts",), scatter="letter"),),
            main=Step(run=pair, schema=PAIRS, lookup=("counts",)),
        ),
        Stage(
            makes="losers",
            version=1,
            main=Step(run=losers, schema=LOSERS, whole=("pairs",), gather=True, scatter="id"),
        ),
        Stage(
            makes="verdicts",
            version=1,
            main=Step(
                run=judge,
                schema=VERDICTS,
                each=("counts", "losers"),
                columns={"counts": ("id", "word")},
            ),
            volatile=("pid",),
        ),
    )
