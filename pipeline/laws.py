"""The laws of a run, each a question to its datasets: nothing vanishes, nothing is counted twice,
nothing is dropped for a likeness that is not real.

A law's evidence is a sentence with numbers. What cannot be checked yet says so; it never passes in
silence.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import duckdb
import msgspec
import numpy as np

from dedup.config import DedupConfig
from dedup.shingles import Shingles, jaccard, shingles, words
from pipeline.fingerprint import Material
from pipeline.store import Dataset, digest_of, read_json
from training.tokenizer import END_OF_TEXT

SAMPLE = 1000
"""Documents compared exactly. More narrow the interval and cost time."""
SEED = 1

Run = Mapping[str, Dataset]
Verdict = Literal["holds", "broken", "not checked"]


@dataclass(frozen=True)
class Law:
    """One law and what was found."""

    number: str
    name: str
    verdict: Verdict
    evidence: str


def check(run: Run, config: DedupConfig, faults: Sequence[str]) -> list[Law]:
    """Every law, in order. `faults` are those of `damaged`: where there are any, the files are not
    read."""
    laws: list[tuple[str, str, tuple[str, ...], Callable[[], tuple[bool, str]]]] = [
        ("1", "every link has one outcome", ("links", "pages", "documents", "corpus"),
         lambda: conservation(run)),
        ("2", "tokens are the kept documents", ("corpus", "tokens"), lambda: tokens(run)),
        ("3", "ids, digests and fingerprints", tuple(run), lambda: integrity(run, faults)),
        ("4", "duplicates are similar to what is kept", ("duplicates", "documents", "corpus"),
         lambda: dropped_twins(run, config)),
        ("4b", "what is kept has no kept twin", ("pairs", "duplicates", "corpus"),
         lambda: kept_twins(run, config)),
        ("5", "no related documents across the split", ("pairs", "corpus"),
         lambda: split(run, config)),
    ]  # fmt: skip
    found = [_asked(run, *law) if law[0] == "3" or not faults else _unasked(*law) for law in laws]
    return [*found, *UNCHECKED]


def _unasked(number: str, name: str, *_: object) -> Law:
    return Law(number, name, "not checked", "files are damaged: see law 3")


def _asked(
    run: Run,
    number: str,
    name: str,
    needed: Sequence[str],
    question: Callable[[], tuple[bool, str]],
) -> Law:
    missing = [dataset for dataset in needed if dataset not in run]
    if missing or not needed:
        return Law(number, name, "not checked", f"not made yet: {', '.join(missing)}")
    holds, evidence = question()
    return Law(number, name, "holds" if holds else "broken", evidence)


UNCHECKED = [
    Law("4c", "planted canaries are found", "not checked", "no canaries are planted yet"),
    Law(
        "5b", "no long run of words across the split", "not checked", "13-grams are not counted yet"
    ),
    Law("6", "no stage drops an implausible share", "not checked", "no circuit breakers yet"),
]


def conservation(run: Run) -> tuple[bool, str]:
    """Law 1: the ids that go in come out, each once."""
    links = _ids(run["links"], "link_id", "outcome = 'kept'")
    pages = _ids(run["pages"], "link_id")
    documents = _ids(run["documents"], "document_id")
    texts = _ids(run["documents"], "document_id", "outcome = 'ok'")
    verdicts = _ids(run["corpus"], "document_id")
    holds = links == pages == documents and texts == verdicts
    return holds, (
        f"{len(links):,} links kept, {len(pages):,} pages, {len(documents):,} documents; "
        f"{len(texts):,} texts, {len(verdicts):,} verdicts"
    )


def _ids(dataset: Dataset, column: str, where: str = "true") -> Counter[bytes]:
    """Every id with how often it stands there: ids that stand twice make the sets differ."""
    return Counter(row[0] for row in query(dataset, f"select {column} from rows where {where}"))


def tokens(run: Run) -> tuple[bool, str]:
    """Law 2: in each split, ids, lengths and ends of text in the token files are those of the index
    and the corpus."""
    sides = query(run["corpus"], "select document_id, split from rows where verdict = 'kept'")
    index = query(run["tokens"], "select document_id, split, length from rows")
    documents, lengths = Counter(split for _, split, _ in index), Counter[str]()
    for _, split, length in index:
        lengths[split] += length
    stored, ends = _stored(run["tokens"])
    holds = Counter(sides) == Counter((i, split) for i, split, _ in index)
    return holds and +lengths == +stored and +documents == +ends, (
        f"{len(sides):,} documents kept, {len(index):,} in the index, {ends.total():,} ends of "
        f"text; {lengths.total():,} tokens in the index, {stored.total():,} in the files"
    )


def _stored(dataset: Dataset) -> tuple[Counter[str], Counter[str]]:
    """Tokens, and ends of text among them, in the files of each split."""
    stored, ends = Counter[str](), Counter[str]()
    for path in sorted(dataset.folder.glob("*.bin")):
        if path.stat().st_size:
            ids = np.memmap(path, "<u2", mode="r")
            split = path.name.split(".")[1]
            stored[split] += len(ids)
            ends[split] += int((ids == END_OF_TEXT).sum())
    return stored, ends


def integrity(run: Run, damage: Sequence[str]) -> tuple[bool, str]:
    """Law 3: ids are unique, files have the digests of their manifests, fingerprints chain down to
    the leaves."""
    faults = damage or [f for dataset in run.values() for f in _faults(run, dataset)]
    files = sum(len(dataset.manifest.files) for dataset in run.values())
    if faults:
        return False, "; ".join(faults[:5])
    return True, f"{files:,} files of {len(run)} datasets have their digests; the chain is whole"


UNIQUE = {
    "links": "link_id",
    "pages": "link_id",
    "documents": "document_id",
    "signals": "document_id",
    "signatures": "document_id",
    "pairs": "a, b",
    "duplicates": "document_id",
    "corpus": "document_id",
    "tokens": "document_id",
}


def damaged(run: Run) -> list[str]:
    """The files that are not what their manifests say."""
    found = []
    for dataset in run.values():
        remedy = f"remove {dataset.folder}, run `webtext rebuild`"
        for file in dataset.manifest.files:
            path = dataset.folder / file.name
            if not path.exists():
                found.append(f"{path} is gone: {remedy}")
            elif digest_of(path) != file.digest:
                found.append(f"{path} is not as it was written: {remedy}")
    return found


def _faults(run: Run, dataset: Dataset) -> Iterator[str]:
    begun = msgspec.convert(read_json(dataset.folder / "begun.json"), Material)
    if begun.fingerprint() != dataset.fingerprint:
        yield f"{dataset.name}: begun.json is not what its fingerprint hashes"
    for name, mark in begun.inputs.items():
        if name not in run or run[name].fingerprint != mark:
            yield f"{dataset.name} was made of another generation of {name}; run `webtext rebuild`"
    key = UNIQUE.get(dataset.name)
    if key and query(dataset, f"select {key} from rows group by {key} having count(*) > 1 limit 1"):
        yield f"{dataset.name}: {key} stands there twice"


def dropped_twins(run: Run, config: DedupConfig) -> tuple[bool, str]:
    """Law 4: who is dropped as a duplicate is who has a keeper; every keeper is kept; of a sample,
    each is similar to its keeper."""
    twins = query(
        run["duplicates"], "select document_id, keeper_id from rows where keeper_id is not null"
    )
    named = query(
        run["corpus"], "select document_id from rows where list_contains(rules, 'duplicate')"
    )
    odd = {twin for twin, _ in twins} ^ {row[0] for row in named}
    gone = {keeper for _, keeper in twins} - kept(run)
    sample = _sample(sorted(twins))
    sets = _sets(run["documents"], [i for pair in sample for i in pair], config.ngram)
    likeness = [jaccard(sets[a], sets[b]) if a in sets and b in sets else 0.0 for a, b in sample]
    least = min(likeness, default=1.0)
    return least >= config.threshold and not gone and not odd, (
        f"{len(twins):,} duplicates, {len(sample):,} compared exactly: least Jaccard with the "
        f"keeper {least:.3f} (threshold {config.threshold}); {len(gone):,} keepers not kept, "
        f"{len(odd):,} dropped without a keeper or kept with one"
    )


def kept(run: Run) -> set[bytes]:
    """The documents that the corpus keeps."""
    return {
        row[0]
        for row in query(run["corpus"], "select document_id from rows where verdict = 'kept'")
    }


def kept_twins(run: Run, config: DedupConfig) -> tuple[bool, str]:
    """Law 4: no verified pair is kept whole; on a sample, unseen pairs are no more than the bands'
    curve allows."""
    corpus = kept(run)
    similar = query(run["pairs"], f"select a, b from rows where jaccard >= {config.threshold}")
    both = sum(a in corpus and b in corpus for a, b in similar)
    sample = _sample(sorted(corpus))
    missed = _similar(_sets(run["documents"], sample, config.ngram), config.threshold) - both
    share = len(sample) / max(len(corpus), 1)
    found = config.found_share(config.threshold)
    allowed = len(similar) * (1 - found) / found * share**2
    bound = allowed + 3 * allowed**0.5 + 3
    return both == 0 and missed <= bound, (
        f"{len(similar):,} verified pairs, {both:,} kept whole; {len(sample):,} kept documents "
        f"compared exactly, {missed:,} unseen pairs (the bands' curve allows {bound:.0f})"
    )


def _similar(sets: Mapping[bytes, Shingles], threshold: float) -> int:
    """Pairs of the sample at or above the threshold; those that share no shingle are never
    compared."""
    holders: dict[int, list[bytes]] = {}
    for identifier, found in sets.items():
        # Prefix filter: two sets of Jaccard t share one of the first (1 - t) n + 1 hashes of each.
        for value in found[: int(len(found) * (1 - threshold)) + 1]:
            holders.setdefault(int(value), []).append(identifier)
    pairs = {pair for few in holders.values() for pair in combinations(sorted(few), 2)}
    return sum(jaccard(sets[a], sets[b]) >= threshold for a, b in pairs)


def split(run: Run, config: DedupConfig) -> tuple[bool, str]:
    """Law 5: no verified pair from `dedup.related` on lies across train and validation."""
    sides = dict(query(run["corpus"], "select document_id, split from rows where verdict = 'kept'"))
    related = query(run["pairs"], f"select a, b from rows where jaccard >= {config.related}")
    across = sum(a in sides and b in sides and sides[a] != sides[b] for a, b in related)
    held_out = sum(side == "validation" for side in sides.values())
    return across == 0, (
        f"{held_out:,} of {len(sides):,} kept documents held out; {across:,} of {len(related):,} "
        f"pairs from Jaccard {config.related} lie across"
    )


def query(dataset: Dataset, text: str) -> list[tuple[Any, ...]]:
    """The answer to an SQL question about `rows`, the dataset's rows."""
    with duckdb.connect() as connection:
        rows = connection.read_parquet(dataset.patterns(), hive_partitioning=False)
        connection.register("rows", rows)
        return connection.execute(text).fetchall()


def _sample(items: Sequence[Any]) -> list[Any]:
    return list(items) if len(items) <= SAMPLE else random.Random(SEED).sample(list(items), SAMPLE)


def _sets(documents: Dataset, ids: Sequence[bytes], ngram: int) -> dict[bytes, Shingles]:
    table = documents.rows(list(ids), ["document_id", "text"])
    return {
        row["document_id"]: shingles(words(row["text"]), ngram)
        for row in table.to_pylist()
        if row["text"] is not None
    }
