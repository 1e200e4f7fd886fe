"""Shingles and their similarity."""

import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dedup.shingles import jaccard, shingles, words

TEXTS = st.text(max_size=200)


def test_words_are_folded_and_digits_stay():
    assert words("Version 1.2 — ÉTÉ!") == ["version", "1", "2", "été"]
    assert words("E = mc²") == ["e", "mc²"]


def test_decomposed_accents_are_the_same_word():
    assert words("e\u0301te\u0301") == words("\u00e9t\u00e9")


def test_a_short_text_is_one_shingle_of_its_own():
    assert len(shingles(["a", "b"], 5)) == 1
    assert shingles(["a", "b"], 5)[0] != shingles(["a", "c"], 5)[0]


@given(TEXTS, st.integers(1, 8))
def test_there_are_at_most_as_many_shingles_as_runs(text: str, ngram: int):
    found = shingles(words(text), ngram)
    assert 1 <= len(found) <= max(len(words(text)) - ngram + 1, 1)
    assert (np.diff(found.astype(object)) > 0).all()


@given(TEXTS, TEXTS)
def test_jaccard_is_that_of_the_sets(a: str, b: str):
    sets = [set(shingles(words(text), 2).tolist()) for text in (a, b)]
    expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    found = jaccard(shingles(words(a), 2), shingles(words(b), 2))
    assert found == expected
    assert found == jaccard(shingles(words(b), 2), shingles(words(a), 2))


@given(TEXTS)
def test_normal_form_does_not_matter(text: str):
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))
