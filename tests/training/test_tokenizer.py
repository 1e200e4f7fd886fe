import json
from pathlib import Path

import pytest
import tiktoken
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from training import tokenizer

BOOKS = Path(__file__).parents[2] / "../shared/data/text/books.jsonl.zst"
# GPT-2's own pattern, by which tiktoken splits before it merges.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


@pytest.fixture(scope="module")
def judge() -> tiktoken.Encoding:
    ranks = tokenizer.vocabulary()
    return tiktoken.Encoding(
        "gpt2-here", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )


def test_golden_ids() -> None:
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.encode("") == []


def test_the_vocabulary_is_complete_and_in_order() -> None:
    assert list(tokenizer.vocabulary().values()) == list(range(tokenizer.END_OF_TEXT))
    assert tokenizer.decode([tokenizer.END_OF_TEXT]) == "<|endoftext|>"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text() | st.sampled_from(["<|endoftext|>", "don't", "\r\n \t", "日本", "🏳️‍🌈"])))
def test_ids_are_those_of_tiktoken_and_come_back_as_text(texts: list[str]) -> None:
    ranks = tokenizer.vocabulary()
    other = tiktoken.Encoding("g", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    flat, lengths = tokenizer.encode_batch(texts)
    expected = [other.encode_ordinary(text) for text in texts]
    assert flat.tolist() == [id_ for ids in expected for id_ in ids]
    assert lengths.tolist() == [len(ids) for ids in expected]
    for text, ids in zip(texts, expected, strict=True):
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text


def test_end_of_text_in_a_page_stays_text(judge: tiktoken.Encoding) -> None:
    ids = tokenizer.encode("a<|endoftext|>b")
    assert tokenizer.END_OF_TEXT not in ids
    assert ids == judge.encode("a<|endoftext|>b", disallowed_special=())


def test_an_unknown_id_is_refused_and_half_a_character_replaced() -> None:
    for unknown in (50257, -1):
        with pytest.raises(ValueError, match=f"token id {unknown} is not one"):
            tokenizer.decode([unknown])
    assert tokenizer.decode([*tokenizer.encode("日")[:1], 0]) == "�!"
    assert tokenizer.decode(tokenizer.encode("日")[:1]) == "�"


def test_a_damaged_vocabulary_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "vocab.bpe"
    damaged.write_text("#version: 0.2\na b\n")
    monkeypatch.setattr(tokenizer, "_MERGES", damaged)
    with pytest.raises(RuntimeError, match=r"vocab\.bpe is not GPT-2's"):
        tokenizer.vocabulary.__wrapped__()


@pytest.mark.skipif(not BOOKS.exists(), reason="../shared/data is not on this machine")
def test_books_give_tiktokens_ids(judge: tiktoken.Encoding) -> None:
    with zstandard.open(BOOKS, "rt", encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"][:100_000] for _ in range(5)]
    flat, _ = tokenizer.encode_batch(texts)
    assert flat.tolist() == [id_ for text in texts for id_ in judge.encode_ordinary(text)]
