"""Each document's exact hash and MinHash signature.

One scheme for a corpus: datasketch's `affine32` over the low half of the shingles' hashes.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from dedup.config import DedupConfig
from dedup.schema import SIGNATURES
from dedup.shingles import Shingles, shingles, words

if TYPE_CHECKING:
    from datasketch import MinHash

VERSION = 1
CHUNK = 8192
"""Shingles permuted at once: bounds memory at CHUNK x permutations x 4 bytes for a text of any
length."""


def sign(documents: Iterable[pa.RecordBatch], config: DedupConfig) -> Iterator[pa.RecordBatch]:
    """One row for each document that has a text. Reads document_id, outcome, text."""
    from datasketch import MinHash  # brings scipy: no command that signs nothing waits for it

    empty = MinHash(num_perm=config.permutations, seed=config.seed, scheme="affine32", hashfunc=int)
    for batch in documents:
        rows = batch.select(["document_id", "outcome", "text"]).to_pylist()
        signed = [_sign(row, config, empty) for row in rows if row["outcome"] == "ok"]
        yield pa.RecordBatch.from_pylist(signed, SIGNATURES)


def _sign(row: dict[str, object], config: DedupConfig, empty: "MinHash") -> dict[str, object]:
    text_words = words(str(row["text"]))
    found = shingles(text_words, config.ngram)
    return {
        "document_id": row["document_id"],
        "exact": xxhash.xxh3_128_digest(" ".join(text_words).encode()),
        "shingles": len(found),
        "minima": minima(found, empty),
    }


def minima(found: Shingles, empty: "MinHash") -> npt.NDArray[np.uint32]:
    """The signature of a set of shingles under the permutations of `empty`."""
    sketch = empty.copy()
    low = (found & np.uint64(0xFFFFFFFF)).tolist()
    for start in range(0, len(low), CHUNK):
        sketch.update_batch(low[start : start + CHUNK])
    return np.asarray(sketch.hashvalues, dtype=np.uint32)


def band_keys(signature: npt.NDArray[np.uint32], bands: int, rows: int) -> list[bytes]:
    """Eight bytes for each band. 64 bits: of 32, eight million documents would share keys by
    chance."""
    parts = signature[: bands * rows].astype("<u4").reshape(bands, rows)
    return [
        xxhash.xxh3_64_digest(band.to_bytes(2, "little") + part.tobytes())
        for band, part in enumerate(parts)
    ]
