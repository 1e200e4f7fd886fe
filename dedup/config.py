"""The `[dedup]` and `[corpus]` branches of the settings.

Thresholds say who chose them and what breaks when they move.
"""

from typing import Annotated

from msgspec import Meta, Struct

Share = Annotated[float, Meta(ge=0, le=1)]


class DedupConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How near-duplicates are found."""

    ngram: Annotated[int, Meta(ge=1, le=50, extra={"changes": ["signatures", "pairs"]})] = 5
    """Words in a shingle. Characters would not do: unrelated long English texts share them."""

    threshold: Annotated[float, Meta(gt=0, le=1, extra={"changes": ["duplicates"]})] = 0.8
    """Exact Jaccard similarity of shingle sets from which two documents are duplicates."""

    related: Annotated[float, Meta(gt=0, le=1, extra={"changes": ["duplicates"]})] = 0.5
    """Jaccard from which two documents must lie on the same side of the split."""

    bands: Annotated[int, Meta(ge=1, le=256, extra={"changes": ["pairs"]})] = 18
    """Bands of the signature. 18 x 7 finds 98.6 % of pairs at Jaccard 0.8 and 13 % at 0.5;
    verification removes what it finds too much, so recall is what the choice is for."""

    rows: Annotated[int, Meta(ge=1, le=64, extra={"changes": ["pairs"]})] = 7
    """Rows of a band: more make a candidate rarer and surer."""

    seed: Annotated[int, Meta(ge=0, le=2**32 - 1, extra={"changes": ["signatures"]})] = 1
    """Seed of the MinHash permutations."""

    permutations: Annotated[int, Meta(ge=8, le=4096, extra={"changes": ["signatures"]})] = 126
    """Minima in a signature, four bytes each; at least bands x rows."""

    def __post_init__(self) -> None:
        if self.bands * self.rows > self.permutations:
            raise ValueError(
                f"dedup.bands x dedup.rows is {self.bands * self.rows}, "
                f"more than the {self.permutations} of dedup.permutations"
            )
        if self.related > self.threshold:
            raise ValueError("dedup.related must not be above dedup.threshold")

    def found_share(self, jaccard: float) -> float:
        """The share of pairs of this similarity that share a band: 1 - (1 - s^rows)^bands."""
        return 1 - (1 - jaccard**self.rows) ** self.bands


class CorpusConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy over signals: which documents are good enough. One key, one rule; all are applied
    at once."""

    min_words: Annotated[int, Meta(ge=0, extra={"changes": ["duplicates", "corpus"]})] = 50
    """Fewer words are no document: stubs, log-in walls, cookie banners."""

    max_words: Annotated[int, Meta(ge=1, extra={"changes": ["duplicates", "corpus"]})] = 200_000
    """More words are a dump of data or a whole book."""

    languages: Annotated[tuple[str, ...], Meta(extra={"changes": ["duplicates", "corpus"]})] = (
        "en",
    )
    """ISO 639-1 codes to keep; empty keeps every language. WebText kept English."""

    min_language_score: Annotated[Share, Meta(extra={"changes": ["duplicates", "corpus"]})] = 0.5
    """How sure the language must be. Half: more likely this language than all others together."""

    min_mean_word_length: Annotated[
        float, Meta(ge=0, extra={"changes": ["duplicates", "corpus"]})
    ] = 3.0
    """Characters; Gopher's rule (Rae et al. 2021, table A1)."""

    max_mean_word_length: Annotated[
        float, Meta(ge=0, extra={"changes": ["duplicates", "corpus"]})
    ] = 10.0
    """Characters; Gopher's rule."""

    min_alphabetic_share: Annotated[Share, Meta(extra={"changes": ["duplicates", "corpus"]})] = 0.6
    """Letters, of all characters but white space: fewer are tables of numbers. Gopher's rule asks
    the same of words, of which 0.8 must hold a letter."""

    min_stop_word_share: Annotated[Share, Meta(extra={"changes": ["duplicates", "corpus"]})] = 0.05
    """The eight words that Gopher looks for (the, be, to, of, and, that, have, with), of all: a
    text with next to none is a list or a menu."""

    max_duplicate_line_share: Annotated[
        Share, Meta(extra={"changes": ["duplicates", "corpus"]})
    ] = 0.3
    """Lines that stand earlier in the same document, of all; Gopher's rule."""

    max_top_3gram_share: Annotated[Share, Meta(extra={"changes": ["duplicates", "corpus"]})] = 0.18
    """Share of the text that its commonest run of three words takes; Gopher's rule."""

    validation_share: Annotated[Share, Meta(extra={"changes": ["corpus"]})] = 0.005
    """Share of kept clusters held out of training, by hash; related documents fall together."""

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1, extra={"changes": ["corpus"]})] = 1
    """Another seed holds out other documents."""
