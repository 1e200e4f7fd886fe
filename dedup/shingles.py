"""Text to its set of shingles: runs of words in normal form, as 64-bit hashes.

Normal form: NFC, case folded, words only. Digits stay: "version 1.2" is not "version 3.4".
A text shorter than a shingle is one shingle, so that short texts are not all alike.
"""

import re
import unicodedata

import numpy as np
import numpy.typing as npt
import xxhash

WORD = re.compile(r"\w+")

Shingles = npt.NDArray[np.uint64]


def words(text: str) -> list[str]:
    """The words of a text in normal form."""
    return WORD.findall(unicodedata.normalize("NFC", text).casefold())


def shingles(text_words: list[str], ngram: int) -> Shingles:
    """The set of hashed runs of `ngram` words, sorted; at least one, even for no words."""
    runs = range(max(len(text_words) - ngram + 1, 1))
    hashes = [xxhash.xxh3_64_intdigest(" ".join(text_words[i : i + ngram]).encode()) for i in runs]
    return np.unique(np.array(hashes, dtype=np.uint64))


def jaccard(a: Shingles, b: Shingles) -> float:
    """Size of the intersection over size of the union."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)
