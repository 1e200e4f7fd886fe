"""GPT-2's byte pairs: text to ids and back.

The vocabulary is the published merge list, beside this file and checked by its hash; ids are
derived from it. Invariant: a page's text never yields END_OF_TEXT, because the encoder knows no
special token: the characters `<|endoftext|>` are text like any other.
"""

import base64
import hashlib
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import gigatoken
import numpy as np
from numpy.typing import NDArray

END_OF_TEXT = 50256
VOCABULARY = 50257

_MERGES = Path(__file__).with_name("vocab.bpe")
_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


def encode(text: str) -> list[int]:
    """The ids of one text, without an end-of-text; UnicodeEncodeError where it is not Unicode."""
    ids: list[int] = _encoder().encode(text.encode("utf-8")).tolist()
    return ids


def encode_batch(texts: Sequence[str]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """The ids of all texts in one row, and how many of them are each text's."""
    if not texts:
        return np.empty(0, np.uint16), np.empty(0, np.int64)
    # On this thread only: a stage's task is given one CPU, and many tasks run side by side.
    lists = _encoder().encode_batch(list(texts), parallel=False).layout
    offsets = np.asarray(lists.offsets.data, np.int64)
    flat = np.asarray(lists.content.data)[offsets[0] : offsets[-1]]
    return flat.astype(np.uint16), np.diff(offsets)


def decode(ids: Sequence[int]) -> str:
    """The text of ids; a character cut in half becomes U+FFFD. ValueError on an unknown id."""
    table = _table()
    for id_ in ids:
        if not 0 <= id_ < len(table):
            raise ValueError(f"token id {id_} is not one of GPT-2's {len(table)}")
    return b"".join(table[id_] for id_ in ids).decode("utf-8", errors="replace")


@cache
def vocabulary() -> dict[bytes, int]:
    """Each token's bytes and its id, in the order of ids, without end-of-text."""
    data = _MERGES.read_bytes()
    if hashlib.sha256(data).hexdigest() != _MERGES_SHA256:
        raise RuntimeError(f"{_MERGES} is not GPT-2's merge list: install the program again")
    letters = _letters()
    ids = {bytes([byte]): rank for rank, byte in enumerate(letters.values())}
    for line in data.decode("utf-8").splitlines()[1:]:
        token = bytes(letters[letter] for letter in line.replace(" ", ""))
        ids[token] = len(ids)
    return ids


def _letters() -> dict[str, int]:
    """The letter that stands for each byte in the merge list, in the order of the bytes' ids.

    A printable Latin-1 character stands for itself; the others follow as U+0100, U+0101, ...
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    stand_ins = {chr(0x100 + number): byte for number, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | stand_ins


@cache
def _encoder() -> gigatoken.Tokenizer:
    # gigatoken reads ranks from a file only. Naming the pretokenizer keeps it from adding the
    # special tokens that it would for a file of a known name.
    lines = (base64.b64encode(token) + b" %d\n" % id_ for token, id_ in vocabulary().items())
    with tempfile.NamedTemporaryFile(suffix=".tiktoken") as ranks:
        ranks.write(b"".join(lines))
        ranks.flush()
        return gigatoken.Tokenizer.from_tiktoken(ranks.name, pretokenizer="gpt2")


@cache
def _table() -> list[bytes]:
    return [*vocabulary(), b"<|endoftext|>"]
