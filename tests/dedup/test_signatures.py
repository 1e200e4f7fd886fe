"""MinHash signatures and their bands."""

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash

from dedup import signatures
from dedup.config import DedupConfig
from dedup.shingles import jaccard, shingles, words

CONFIG = DedupConfig()
WORDS = [f"word{number}" for number in range(3000)]


def documents(*texts: str) -> pa.RecordBatch:
    rows = [
        {"document_id": bytes([number]) * 16, "outcome": "ok" if text else "empty", "text": text}
        for number, text in enumerate(texts)
    ]
    return pa.RecordBatch.from_pylist(rows)


def sign(*texts: str) -> list[dict]:
    return [row for b in signatures.sign([documents(*texts)], CONFIG) for row in b.to_pylist()]


def test_a_document_without_a_text_has_no_signature():
    assert [row["document_id"][0] for row in sign("one two", "", "three")] == [0, 2]


def test_equal_in_normal_form_is_equal():
    a, b, c = sign("The Straße\nis LONG.", "the strasse is long", "the strasse is longer")
    assert a["exact"] == b["exact"] and a["minima"] == b["minima"]
    assert a["exact"] != c["exact"]


@pytest.mark.parametrize("common", [0.5, 0.8, 0.95])
def test_the_share_of_equal_minima_estimates_jaccard(common: float):
    """Within four standard deviations of the true similarity, over 126 minima."""
    shared, own = int(2000 * common), int(2000 * (1 - common))
    a = " ".join(WORDS[: shared + own])
    b = " ".join(WORDS[:shared] + [f"other{i}" for i in range(own)])
    first, second = sign(a, b)
    true = jaccard(shingles(words(a), 5), shingles(words(b), 5))
    estimate = np.mean(np.array(first["minima"]) == np.array(second["minima"]))
    assert abs(estimate - true) < 4 * (true * (1 - true) / 126) ** 0.5


def test_a_long_text_is_signed_in_chunks_as_at_once():
    found = shingles([f"w{i}" for i in range(3 * signatures.CHUNK + 17)], 5)
    empty = MinHash(num_perm=126, seed=1, scheme="affine32", hashfunc=int)
    whole = empty.copy()
    whole.update_batch((found & np.uint64(0xFFFFFFFF)).tolist())
    assert (signatures.minima(found, empty) == whole.hashvalues).all()


def test_known_answer():
    """A library that signs otherwise must not pass unseen: old signatures were worthless."""
    (row,) = sign("the quick brown fox jumps over the lazy dog")
    assert row["shingles"] == 5
    assert row["minima"][:3] == [232674167, 332507795, 1757090709]


def test_bands_differ_by_their_place():
    keys = signatures.band_keys(np.zeros(126, np.uint32), 18, 7)
    assert len(set(keys)) == 18 and {len(key) for key in keys} == {8}


def test_a_signature_follows_its_settings():
    text = " ".join(WORDS[:40])

    def signed(**settings: int) -> dict:
        (batch,) = signatures.sign([documents(text)], DedupConfig(**settings))
        (row,) = batch.to_pylist()
        return row

    assert signed(seed=1)["minima"] != signed(seed=2)["minima"]
    assert len(signed(permutations=200)["minima"]) == 200
    assert [signed(ngram=ngram)["shingles"] for ngram in (1, 5, 8)] == [40, 36, 33]
