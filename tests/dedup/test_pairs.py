"""Candidates and their verification, over any partition of the keys."""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup import duplicates, pairs, signatures
from dedup.config import DedupConfig
from dedup.schema import BANDS, PAIRS, SIGNATURES, Lookup
from dedup.shingles import jaccard, shingles, words

NEARDUP = Path(__file__).parents[2] / "../shared/data/neardup"
CONFIG = DedupConfig()


def documents_of(texts: Sequence[str]) -> pa.Table:
    ids = [number.to_bytes(16, "big") for number in range(len(texts))]
    return pa.table(
        {
            "document_id": pa.array(ids, pa.binary(16)),
            "outcome": ["ok"] * len(texts),
            "text": pa.array(texts, pa.large_string()),
        }
    )


def lookup(table: pa.Table) -> Lookup:
    def rows(ids: Sequence[bytes], columns: Sequence[str]) -> pa.Table:
        wanted = pa.array(list(ids), pa.binary(16))
        return table.filter(pc.is_in(table["document_id"], wanted)).select(list(columns))

    return rows


def match(texts: Sequence[str], config: DedupConfig = CONFIG, partitions: int = 1) -> pa.Table:
    """The pairs of these texts, the keys spread over so many partitions."""
    documents = documents_of(texts)
    signed = pa.Table.from_batches(signatures.sign(documents.to_batches(), config), SIGNATURES)
    bands = pa.Table.from_batches(pairs.spread(signed.to_batches(), config), BANDS)
    found = []
    for part in range(partitions):
        mine = [key[0] % partitions == part for key in bands["band_key"].to_pylist()]
        few = bands.filter(pa.array(mine)).to_batches()
        found += list(pairs.match(few, lookup(signed), lookup(documents), config))
    return pa.Table.from_batches(found, PAIRS)


def numbers(table: pa.Table) -> list[tuple[int, int, float]]:
    return sorted(
        (int.from_bytes(row["a"], "big"), int.from_bytes(row["b"], "big"), row["jaccard"])
        for row in table.to_pylist()
    )


def essay(seed: int, length: int = 300) -> list[str]:
    return [f"w{(seed * 7919 + i * i * 31 + i) % 5000}" for i in range(length)]


def test_an_edited_copy_is_found_with_its_exact_similarity():
    original, edited = essay(1), essay(1)
    edited[100] = "changed"
    texts = [" ".join(original), " ".join(essay(2)), " ".join(edited)]
    expected = jaccard(shingles(words(texts[0]), 5), shingles(words(texts[2]), 5))
    assert numbers(match(texts)) == [(0, 2, expected)]


def test_a_pair_knows_the_size_of_each_document():
    long, short = essay(1), essay(1)[:285]
    (row,) = match([" ".join(short), " ".join(long)]).to_pylist()
    assert (row["a_shingles"], row["b_shingles"]) == (
        len(shingles(short, 5)), len(shingles(long, 5))
    )  # fmt: skip


def test_similarity_is_that_of_shingles_of_the_length_asked_for():
    original, edited = essay(1), essay(1)
    edited[100] = "changed"
    ((_, _, found),) = numbers(match([" ".join(original), " ".join(edited)], DedupConfig(ngram=2)))
    assert found == jaccard(shingles(original, 2), shingles(edited, 2))


def test_texts_are_read_a_few_at_a_time_and_none_is_passed_over(monkeypatch):
    texts = [" ".join([*essay(1), f"end{n}"]) for n in range(4)]
    whole = numbers(match(texts))
    monkeypatch.setattr(pairs, "TEXTS_AT_ONCE", 2)
    assert numbers(match(texts)) == whole
    assert len(whole) == 6


def test_equal_texts_are_a_star_not_a_clique():
    text = " ".join(essay(3))
    assert numbers(match([text, text.upper(), text, text])) == [(0, n, 1.0) for n in (1, 2, 3)]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=2, max_size=12),
    st.integers(1, 7),
)
def test_each_pair_comes_once_for_any_partition(edits: list[tuple[int, int]], partitions: int):
    texts = []
    for seed, edited in edits:
        text = essay(seed, 120)
        text[:edited] = [f"e{seed}"] * edited
        texts.append(" ".join(text))
    whole = numbers(match(texts))
    assert numbers(match(texts, partitions=partitions)) == whole
    assert len({(a, b) for a, b, _ in whole}) == len(whole)


def test_the_labelled_articles_are_found():
    """A thousand news articles with planted plagiarism: every labelled pair that is similar is
    found."""
    if not NEARDUP.exists():
        pytest.skip("../shared/data/neardup is not on this machine")
    lines = (NEARDUP / "articles_1000.train").read_text().splitlines()
    names, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    labelled = [
        tuple(sorted((names.index(a), names.index(b))))
        for a, b in (re.split(r"\s+", line.strip()) for line in
                     (NEARDUP / "articles_1000.truth").read_text().splitlines() if line.strip())
    ]  # fmt: skip
    sets = [shingles(words(text), 5) for text in texts]
    found = {(a, b): similarity for a, b, similarity in numbers(match(texts))}
    truth = {(a, b): jaccard(sets[a], sets[b]) for a, b in combinations(range(len(texts)), 2)}
    similar = {pair for pair, similarity in truth.items() if similarity >= CONFIG.threshold}
    assert all(found[pair] == truth[pair] for pair in found)
    assert similar <= found.keys()
    assert {pair for pair in labelled if truth[pair] >= CONFIG.threshold} <= similar
    listed = [
        duplicates.Pair(*pair, similarity, len(sets[pair[0]]), len(sets[pair[1]]))
        for pair, similarity in found.items()
    ]
    dropped = duplicates.keepers(listed, set(range(len(texts))), CONFIG.threshold)
    assert len(dropped) == len({b for _, b in similar} | {a for a, _ in similar}) // 2
