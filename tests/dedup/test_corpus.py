"""Verdicts: each rule alone, all together, and the split."""

import pyarrow as pa
import pytest

from dedup import corpus, policy
from dedup.config import CorpusConfig
from dedup.schema import DUPLICATES, RULES

CONFIG = CorpusConfig()
GOOD = {
    "words": 500,
    "language": "en",
    "language_score": 0.99,
    "mean_word_length": 4.7,
    "alphabetic_share": 0.95,
    "stop_word_share": 0.3,
    "duplicate_line_share": 0.0,
    "top_3gram_share": 0.01,
}
BAD = {
    "min_words": {"words": 49},
    "max_words": {"words": 200_001},
    "language": {"language": "de"},
    "mean_word_length": {"mean_word_length": 11.0},
    "alphabetic_share": {"alphabetic_share": 0.5},
    "stop_word_share": {"stop_word_share": 0.01},
    "duplicate_line_share": {"duplicate_line_share": 0.4},
    "top_3gram_share": {"top_3gram_share": 0.3},
}


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def keep(signals: list[dict], related: dict[int, tuple[int, int | None]], config=CONFIG):
    """One row of CORPUS for each of these signals; `related` is document -> (cluster, keeper)."""
    ids = [name(number) for number in range(len(signals))]
    documents = [{"document_id": i, "url": "http://a/", "outcome": "ok"} for i in ids]
    measured = [{"document_id": i} | s for i, s in zip(ids, signals, strict=True)]
    twins = [
        {"document_id": name(d), "cluster_id": name(c), "keeper_id": k if k is None else name(k)}
        for d, (c, k) in related.items()
    ]
    found = corpus.keep(
        [pa.RecordBatch.from_pylist(documents)],
        [pa.RecordBatch.from_pylist(measured)],
        [pa.RecordBatch.from_pylist(twins, DUPLICATES)],
        config,
    )
    return [row for batch in found for row in batch.to_pylist()]


def test_a_good_document_is_kept_and_split():
    (row,) = keep([GOOD], {})
    assert (row["verdict"], row["rule"], row["rules"], row["split"]) == ("kept", None, [], "train")


@pytest.mark.parametrize("rule", BAD)
def test_each_rule_drops_alone(rule: str):
    (row,) = keep([GOOD | BAD[rule]], {})
    assert (row["verdict"], row["rule"], row["rules"]) == ("dropped", rule, [rule])
    assert row["split"] is None


def test_every_rule_has_a_name_in_the_schema():
    assert set(RULES) == {"duplicate", *policy.DROPS} == {"duplicate", *BAD}


def test_all_rules_are_named_the_first_in_their_order():
    bad = GOOD | BAD["top_3gram_share"] | BAD["language"]
    (_, row) = keep([GOOD, bad], {0: (0, None), 1: (0, 0)})
    assert row["rules"] == ["duplicate", "language", "top_3gram_share"]
    assert row["rule"] == "duplicate"


def test_a_keeper_is_no_duplicate():
    first, second = keep([GOOD, GOOD], {0: (0, None), 1: (0, 0)})
    assert (first["verdict"], second["rule"]) == ("kept", "duplicate")


def test_an_unsure_language_is_not_english_enough():
    (row,) = keep([GOOD | {"language_score": 0.3}], {})
    assert row["rule"] == "language"


def test_a_limit_itself_is_within_the_limit():
    least = {"words": 50, "language_score": 0.5, "mean_word_length": 3.0, "alphabetic_share": 0.6}
    least |= {"stop_word_share": 0.05, "duplicate_line_share": 0.3, "top_3gram_share": 0.18}
    for row in keep([GOOD | least, GOOD | {"words": 200_000, "mean_word_length": 10.0}], {}):
        assert row["verdict"] == "kept", row["rules"]


def test_words_can_be_too_short_as_well():
    (row,) = keep([GOOD | {"mean_word_length": 2.9}], {})
    assert row["rule"] == "mean_word_length"


def test_a_document_without_a_text_has_no_verdict():
    documents = [
        {"document_id": name(n), "url": "u", "outcome": "ok" if n % 2 else "empty"}
        for n in range(5)
    ]
    signals = pa.RecordBatch.from_pylist([{"document_id": name(n)} | GOOD for n in (1, 3)])
    none = pa.RecordBatch.from_pylist([], DUPLICATES)
    (found,) = corpus.keep([pa.RecordBatch.from_pylist(documents)], [signals], [none], CONFIG)
    assert found.column("document_id").to_pylist() == [name(1), name(3)]


def test_no_languages_keep_every_language():
    (row,) = keep([GOOD | {"language": "de"}], {}, CorpusConfig(languages=()))
    assert row["verdict"] == "kept"


def test_related_documents_share_a_side():
    config = CorpusConfig(validation_share=0.5)
    rows = keep([GOOD] * 40, {number: (number - number % 2, None) for number in range(40)}, config)
    assert all(a["split"] == b["split"] for a, b in zip(rows[::2], rows[1::2], strict=True))
    assert {row["split"] for row in rows} == {"train", "validation"}


def test_the_share_held_out_is_the_one_asked_for():
    config = CorpusConfig(validation_share=0.1)
    held_out = sum(corpus.split(name(n), config) == "validation" for n in range(20_000))
    assert abs(held_out - 2000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5


def test_another_seed_holds_out_others():
    sides = [
        [corpus.split(name(n), CorpusConfig(validation_share=0.5, seed=seed)) for n in range(50)]
        for seed in (1, 2)
    ]
    assert sides[0] != sides[1]


def test_signals_of_another_run_are_refused():
    documents = pa.RecordBatch.from_pylist([{"document_id": name(1), "url": "u", "outcome": "ok"}])
    signals = pa.RecordBatch.from_pylist([{"document_id": name(2)} | GOOD])
    none = pa.RecordBatch.from_pylist([], DUPLICATES)
    with pytest.raises(ValueError, match="not of one run"):
        list(corpus.keep([documents], [signals], [none], CONFIG))
