"""Frames of zstd: what they hold and where they end, of every shape and cut off at every place."""

import io
import itertools
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from crawl import frames
from crawl.streams import Pieces

TEXT = b"".join(b'{"id": "%d"}\n' % number for number in range(9000))
NOISE = random.Random(1).randbytes(300_000)
"""Cannot be made smaller: lies in the frame as it is."""


def packed(text: bytes, level: int = 1, **how: bool) -> bytes:
    return zstandard.ZstdCompressor(level=level, **how).compress(text)


def streamed(text: bytes, size: int = 1000) -> bytes:
    """A frame that does not say how long it is, of blocks of so many bytes."""
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    blocks = [text[at : at + size] for at in range(0, len(text), size)]
    coded = [packer.compress(one) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
             for one in blocks]  # fmt: skip
    return b"".join(coded) + packer.flush()


def passed_over(size: int, kind: int = 0) -> bytes:
    return bytes([0x50 + kind]) + b"\x2a\x4d\x18" + size.to_bytes(4, "little") + bytes(size)


FRAMES = {
    "text": (packed(TEXT), TEXT),
    "text, checked": (packed(TEXT, 3, write_checksum=True), TEXT),
    "text, of unknown length": (packed(TEXT, 3, write_content_size=False), TEXT),
    "text, in blocks": (streamed(TEXT, 30_000), TEXT),
    "noise": (packed(NOISE), NOISE),
    "one byte, repeated": (packed(b"x" * 400_000), b"x" * 400_000),
    "one byte": (packed(b"x"), b"x"),
    "nothing": (packed(b""), b""),
    "nothing, passed over": (passed_over(0, 15), b""),
    "a little, passed over": (passed_over(3, 7), b""),
    "much, passed over": (passed_over(300_000), b""),
}


@given(st.lists(st.sampled_from(list(FRAMES)), max_size=5))
def test_frames_of_any_shape_follow_each_other(names: list[str]) -> None:
    coded, held = zip(*(FRAMES[name] for name in names), strict=True) if names else ((), ())
    found = list(frames.pieces(io.BytesIO(b"".join(coded))))
    assert b"".join(piece for piece, _ in found) == b"".join(held)
    ends = list(itertools.accumulate(map(len, coded)))
    assert [place for _, place in found if place is not None] == ends
    assert all(len(piece) <= frames.CHUNK for piece, _ in found)
    assert list(frames.ends(io.BytesIO(b"".join(coded)), ends[-1] if ends else 0)) == ends


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 400))
def test_many_frames_are_one_stream(pieces: list[bytes], size: int) -> None:
    coded = b"".join(packed(piece) + passed_over(3) for piece in pieces)
    stream = io.BufferedReader(Pieces(frames.pieces(io.BytesIO(coded))))
    assert b"".join(iter(lambda: stream.read(size), b"")) == b"".join(pieces)


SHORT = [b'{"id": 1}\n' * 20, b"", b"y" * 900, NOISE[:300]]
SHORT_CODED = [packed(SHORT[0]) + passed_over(9), packed(SHORT[1]), streamed(SHORT[2], 400),
               packed(SHORT[3])]  # fmt: skip


@pytest.mark.parametrize("size", range(1, sum(map(len, SHORT_CODED))))
def test_a_file_that_breaks_off_at_any_byte_is_told_and_gives_what_it_holds(size: int) -> None:
    whole = b"".join(SHORT_CODED)
    own_ends = set(frames.ends(io.BytesIO(whole), len(whole)))
    found = b""
    try:
        for piece, place in frames.pieces(io.BytesIO(whole[:size])):
            found += piece
            assert place is None or place in own_ends
        broke_off = False
    except EOFError:
        broke_off = True
    assert broke_off == (size not in own_ends)
    assert b"".join(SHORT).startswith(found)
    full = sum(end <= size for end in itertools.accumulate(map(len, SHORT_CODED)))
    assert len(found) >= len(b"".join(SHORT[:full]))
    assert set(frames.ends(io.BytesIO(whole[:size]), size)) == {e for e in own_ends if e <= size}


def test_what_is_whole_of_a_block_that_lies_there_as_it_is_is_given() -> None:
    found = b""
    with pytest.raises(EOFError):
        for piece, _ in frames.pieces(io.BytesIO(packed(NOISE)[:200_000])):
            found += piece
    assert len(found) > 190_000 and NOISE.startswith(found)


NO_MAGIC = b"\x29" + packed(b"x")[1:]


@pytest.mark.parametrize(
    "rest", [b"\x60\x2a\x4d\x18" + bytes(40), b"garbage" * 9, bytes(64), NO_MAGIC]
)
def test_what_is_no_frame_is_damage(rest: bytes) -> None:
    coded = packed(TEXT)
    with pytest.raises(zstandard.ZstdError):
        list(frames.pieces(io.BytesIO(coded + rest)))
    assert list(frames.ends(io.BytesIO(coded + rest), len(coded + rest))) == [len(coded)]


class Storage(io.BytesIO):
    """A file that says nothing of where a `seek` leads, as SFTP's, and remembers what is asked."""

    largest = 0

    def seek(self, place: int, whence: int = 0) -> int:
        super().seek(place, whence)
        return None  # type: ignore[return-value]

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None and size >= 0
        self.largest = max(self.largest, size)
        return super().read(size)


def test_a_storage_is_asked_for_little_at_once_and_for_its_place() -> None:
    coded = FRAMES["much, passed over"][0] + packed(TEXT)
    storage = Storage(coded)
    assert list(frames.ends(storage, len(coded))) == [len(coded) - len(packed(TEXT)), len(coded)]
    storage = Storage(coded)
    assert b"".join(piece for piece, _ in frames.pieces(storage)) == TEXT
    assert storage.largest == frames.CHUNK


def test_blocks_that_hold_nothing_are_many_at_once() -> None:
    coded = packed(b"x" * 9)[:5]  # magic and descriptor: of one segment, its length in a byte
    text = coded + b"\0" + bytes(3 * 5000) + b"\1\0\0"
    found = list(frames.pieces(io.BytesIO(text + packed(b"x"))))
    assert b"".join(piece for piece, _ in found) == b"x"
    assert len(found) < 50
    assert [place for _, place in found if place] == [len(text), len(text + packed(b"x"))]


def test_a_frame_that_needs_a_dictionary_is_told_and_has_an_end() -> None:
    words = zstandard.train_dictionary(4096, [TEXT[at : at + 500] for at in range(0, 90_000, 500)])
    first = zstandard.ZstdCompressor(dict_data=words).compress(TEXT[:51_111])
    coded = first + packed(b"x")
    assert zstandard.get_frame_parameters(first).dict_id
    with pytest.raises(zstandard.ZstdError):
        list(frames.pieces(io.BytesIO(coded)))
    assert list(frames.ends(io.BytesIO(coded), len(coded))) == [len(first), len(coded)]
