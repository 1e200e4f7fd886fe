"""Which documents are dropped for which: a maximal independent set, whatever the order of the
pairs."""

import random

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dedup import duplicates
from dedup.config import CorpusConfig, DedupConfig
from dedup.duplicates import Pair
from dedup.schema import PAIRS

CONFIG = DedupConfig()


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


GOOD = {
    "words": 500, "language": "en", "language_score": 1.0, "mean_word_length": 5.0,
    "alphabetic_share": 1.0, "stop_word_share": 0.3, "duplicate_line_share": 0.0,
    "top_3gram_share": 0.0,
}  # fmt: skip


def find(pairs: list[Pair], dirty: set[int] = frozenset()) -> dict[int, tuple[int, int | None]]:
    """document -> (cluster, keeper); the `dirty` break a rule of the policy."""

    def signals(ids: list[bytes], columns) -> pa.Table:
        few = {name(number) for number in dirty}
        rows = [{"document_id": i} | GOOD | ({"words": 1} if i in few else {}) for i in ids]
        empty = pa.RecordBatch.from_pylist([{"document_id": b""} | GOOD])
        return pa.Table.from_pylist(rows, empty.schema).select(columns)

    rows = pa.RecordBatch.from_pylist([pair._asdict() for pair in pairs], PAIRS)
    return {
        int.from_bytes(row["document_id"], "big"): (
            int.from_bytes(row["cluster_id"], "big"),
            row["keeper_id"] and int.from_bytes(row["keeper_id"], "big"),
        )
        for batch in duplicates.find([rows], signals, CONFIG, CorpusConfig())
        for row in batch.to_pylist()
    }


def pair(a: int, b: int, jaccard: float, sizes: dict[int, int] | None = None) -> Pair:
    sizes = sizes or {}
    return Pair(name(a), name(b), jaccard, sizes.get(a, 100), sizes.get(b, 100))


def test_the_longer_one_stays():
    assert find([pair(1, 2, 0.9, {2: 200})]) == {1: (1, 2), 2: (1, None)}


def test_of_equals_the_smaller_id_stays():
    assert find([pair(1, 2, 0.9)]) == {1: (1, None), 2: (1, 1)}


def test_a_chain_drops_only_what_is_like_a_kept_one():
    """1 ~ 2 ~ 3, but 1 is not like 3: 3 stays."""
    assert find([pair(1, 2, 0.9), pair(2, 3, 0.9)]) == {1: (1, None), 2: (1, 1), 3: (1, None)}


def test_related_but_not_similar_shares_a_cluster_and_stays():
    assert find([pair(1, 2, 0.6)]) == {1: (1, None), 2: (1, None)}
    assert find([pair(1, 2, 0.4)]) == {}
    assert find([pair(1, 2, 0.5)]) == {1: (1, None), 2: (1, None)}


def rows_of(pairs: list[Pair]) -> list[dict]:
    batch = pa.RecordBatch.from_pylist([pair._asdict() for pair in pairs], PAIRS)
    found = duplicates.find([batch], all_good, CONFIG, CorpusConfig())
    return [row for part in found for row in part.to_pylist()]


def all_good(ids: list[bytes], columns) -> pa.Table:
    return pa.Table.from_pylist([{"document_id": i} | GOOD for i in ids]).select(columns)


def test_a_duplicate_says_how_like_its_keeper_it_is():
    found = rows_of([pair(1, 2, 0.9), pair(3, 4, 1.0), pair(5, 6, 0.6)])
    assert [row["jaccard"] for row in found] == [None, 0.9, None, 1.0, None, None]


def test_many_documents_come_in_several_batches_and_none_is_lost(monkeypatch):
    pairs = [pair(number, number + 1, 0.9) for number in range(0, 20, 2)]
    whole = rows_of(pairs)
    monkeypatch.setattr(duplicates, "ROWS_AT_ONCE", 3)
    assert rows_of(pairs) == whole
    assert len(whole) == 20


def test_copies_go_with_the_one_that_stands_for_them():
    """2 = 3 word for word; the longer 1 is like 2, so it is like 3, though the pair was never
    listed."""
    sizes = {1: 200}
    found = find([pair(1, 2, 0.85, sizes), pair(2, 3, 1.0, sizes)])
    assert found == {1: (1, None), 2: (1, 1), 3: (1, 1)}


def test_a_document_never_goes_for_a_twin_that_goes_itself():
    """The longer 1 breaks a rule: 2 stays, and 3, like 2, goes for 2."""
    sizes = {1: 200, 2: 150}
    pairs = [pair(1, 2, 0.9, sizes), pair(1, 3, 0.9, sizes), pair(2, 3, 0.9, sizes)]
    assert find(pairs, {1}) == {1: (1, None), 2: (1, None), 3: (1, 2)}
    assert find([pair(1, 2, 1.0)], {1}) == {1: (1, 2), 2: (1, None)}
    assert find([pair(1, 2, 1.0)], {1, 2}) == {1: (1, None), 2: (1, None)}


SIMILARITIES = st.dictionaries(
    st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda p: p[0] < p[1]),
    st.sampled_from([0.55, 0.7, 0.8, 0.85, 0.95]),
    max_size=25,
)


@given(
    SIMILARITIES,
    st.lists(st.integers(1, 5), min_size=12, max_size=12),
    st.sets(st.integers(0, 11)),
)
def test_dropped_if_and_only_if_similar_to_a_kept_one(similarities, sizes, dirty):
    """And of higher priority, unless it may not be kept itself."""
    pairs = [
        pair(a, b, similarity, dict(enumerate(sizes)))
        for (a, b), similarity in similarities.items()
    ]
    found = find(pairs, dirty)
    kept = {number for number, (_, keeper) in found.items() if keeper is None} - dirty
    for number, (_, keeper) in found.items():
        better = {
            other
            for other in kept
            if similarities.get((min(number, other), max(number, other)), 0) >= CONFIG.threshold
            and (-sizes[other], other) < (-sizes[number], number)
        }
        assert (keeper in better) if keeper is not None else not better


@given(SIMILARITIES)
def test_the_order_of_pairs_does_not_matter(similarities):
    pairs = [pair(a, b, similarity) for (a, b), similarity in similarities.items()]
    assert find(random.Random(1).sample(pairs, len(pairs))) == find(pairs)
