"""Measures documents: language, length, repetition, the look of the text. It decides nothing.

Each measurement is a pure function of one text. Shares are rounded so that they do not depend on
the order in which a machine adds; the rules that they feed follow Gopher (Rae et al. 2021, table
A1) and C4 (Raffel et al. 2020, section 2.2), whose thresholds belong to the policy, not here.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from crawl.schema import SIGNALS, DocumentOutcome

VERSION = 1

LANGUAGE_CHARACTERS = 10_000
"""Enough to be sure of a language; a whole book takes seconds and says the same."""
DIGITS = 4
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
# Gopher's eight: a text without any two of them is hardly English prose.
STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
SYMBOLS = "#{}[]<>|\\~^_=*@…"
BULLETS = ("-", "*", "•", "‣", "▪", "●", "–", "·", "►")
ELLIPSES = ("...", "…")

Row = dict[str, Any]


def measure(documents: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One row for each document that has text, in the order of the documents."""
    for batch in documents:
        columns = [batch.column(name).to_pylist() for name in ("document_id", "outcome", "text")]
        rows = [
            {"document_id": document_id} | signals(text)
            for document_id, outcome, text in zip(*columns, strict=True)
            if outcome == DocumentOutcome.OK
        ]
        yield pa.RecordBatch.from_pylist(rows, SIGNALS)


def signals(text: str) -> Row:
    """All measurements of a text. A share of nothing is 0."""
    tokens = text.split()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = [word.lower() for word in WORD.findall(text)]
    language, score = language_of(text)
    return {
        "characters": len(text),
        "words": len(tokens),
        "lines": len(lines),
        "language": language,
        "language_score": score,
        "mean_word_length": _share(sum(map(len, tokens)), len(tokens)),
        # of characters that are no white space
        "alphabetic_share": _share(sum(map(str.isalpha, text)), sum(map(len, tokens))),
        "digit_share": _share(sum(map(str.isdigit, text)), sum(map(len, tokens))),
        "symbol_share": _share(sum(map(text.count, SYMBOLS)), sum(map(len, tokens))),
        "stop_word_share": _share(sum(word in STOP_WORDS for word in words), len(words)),
        # of lines: how many say what an earlier one said
        "duplicate_line_share": _share(len(lines) - len(set(lines)), len(lines)),
        "top_3gram_share": _top_ngram_share(words, 3),
        "bullet_line_share": _share(sum(line.startswith(BULLETS) for line in lines), len(lines)),
        "ellipsis_line_share": _share(sum(line.endswith(ELLIPSES) for line in lines), len(lines)),
    }


def language_of(text: str) -> tuple[str, float]:
    """The ISO 639-1 code of a text's language, and how sure that is, between 0 and 1."""
    language, score = _identifier().classify(text[:LANGUAGE_CHARACTERS])
    return str(language), round(float(score), DIGITS)


@functools.cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _top_ngram_share(words: list[str], size: int) -> float:
    """Share of the words' characters that lie in occurrences of the most frequent n-gram; 0 where
    none comes twice."""
    ngrams = Counter(zip(*(words[start:] for start in range(size)), strict=False))
    characters = sum(map(len, words))
    # the longest of equally frequent ones: the answer must not depend on which came first
    top, count = max(
        ngrams.items(), key=lambda item: (item[1], sum(map(len, item[0]))), default=((), 1)
    )
    return min(1.0, _share(count * sum(map(len, top)), characters)) if count > 1 else 0.0


def _share(part: int, whole: int) -> float:
    return round(part / whole, DIGITS) if whole else 0.0
