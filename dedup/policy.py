"""The policy: which rules a document's signals break. Pure, and judged nowhere else.

All rules are applied to every document, so that the effect of each, own and shared, can be counted.
"""

from collections.abc import Callable, Mapping
from typing import Any

from dedup.config import CorpusConfig

Signals = Mapping[str, Any]
Rule = Callable[[Signals, CorpusConfig], bool]

DROPS: dict[str, Rule] = {
    "min_words": lambda s, c: s["words"] < c.min_words,
    "max_words": lambda s, c: s["words"] > c.max_words,
    "language": lambda s, c: (
        bool(c.languages)
        and (s["language"] not in c.languages or s["language_score"] < c.min_language_score)
    ),
    "mean_word_length": lambda s, c: (
        not c.min_mean_word_length <= s["mean_word_length"] <= c.max_mean_word_length
    ),
    "alphabetic_share": lambda s, c: s["alphabetic_share"] < c.min_alphabetic_share,
    "stop_word_share": lambda s, c: s["stop_word_share"] < c.min_stop_word_share,
    "duplicate_line_share": lambda s, c: s["duplicate_line_share"] > c.max_duplicate_line_share,
    "top_3gram_share": lambda s, c: s["top_3gram_share"] > c.max_top_3gram_share,
}
"""Whether a document's signals break a rule."""

COLUMNS = (
    "document_id", "words", "language", "language_score", "mean_word_length", "alphabetic_share",
    "stop_word_share", "duplicate_line_share", "top_3gram_share",
)  # fmt: skip
"""The signals that the rules read."""


def broken(signals: Signals, config: CorpusConfig) -> set[str]:
    """The rules that a document breaks."""
    return {name for name, drops in DROPS.items() if drops(signals, config)}
