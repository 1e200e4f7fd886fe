"""Whole lines in blocks: each line once, whatever the cuts, the blocks and the form of the file."""

import bz2
import codecs
import gzip
import itertools
import lzma
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from hypothesis import assume, example, given
from hypothesis import strategies as st

from crawl import lines, streams
from crawl.lines import Block
from crawl.streams import Part

LINE = st.one_of(st.binary(max_size=4), st.binary(max_size=90), st.just(b"\xc3\xa9" * 40))
TEXT = st.builds(
    lambda head, rows, last: head + b"".join(rows) + last,
    st.sampled_from([b"first", b"first\n", codecs.BOM_UTF8 + b"first"]),
    st.lists(st.builds(bytes.__add__, LINE, st.sampled_from([b"\n", b"\r\n"])), max_size=12),
    st.one_of(st.just(b""), LINE),
)
"""Begins as no compressed form does."""
BLOCK = st.sampled_from([1, 2, 7, 16, 64, 1000])
CHUNK = st.sampled_from([1, 2, 5, 16, 4096])
CUTS = st.lists(st.integers(3, 300), max_size=6)
SKIPPABLE = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
LONGEST = 100


def frame(text: bytes, size: int = 700) -> bytes:
    """A frame of blocks of so many bytes."""
    packer = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    blocks = [text[at : at + size] for at in range(0, len(text), size)]
    coded = [
        packer.compress(one) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for one in blocks
    ]
    return b"".join(coded) + packer.flush()


def block_of(rows: Sequence[bytes]) -> bytes:
    """A block of a `.zst_blocks` file."""
    starts = itertools.accumulate(map(len, rows), initial=0)
    table = [number for pair in zip(starts, map(len, rows), strict=False) for number in pair]
    numbers = b"".join(number.to_bytes(4, "little") for number in [len(rows), *table])
    coded = frame(numbers + b"".join(rows))
    return len(coded).to_bytes(4, "little") + coded


@contextmanager
def small(block: int, chunk: int = 16, longest: int = 1 << 16) -> Iterator[None]:
    """Blocks, lines and pieces of such sizes that a short text has many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        patch.setattr(lines, "MAX_LINE_BYTES", longest)
        patch.setattr(lines, "CHUNK", chunk)
        patch.setattr(streams, "CHUNK", chunk)
        yield


def kept(part: Part, place: int = 0) -> list[Block]:
    """The blocks, with lines that stay when the next one is asked for."""
    found = lines.blocks(part, place)
    return [one._replace(lines=memoryview(bytes(one.lines))) for one in found]


def read(part: Part) -> list[Block]:
    """The blocks of a part, which follow each other, and again from the end of each of them on."""
    blocks = kept(part)
    assert all(one.end == other.place for one, other in itertools.pairwise(blocks))
    assert all(one.end - one.place == len(one.lines) for one in blocks if one.whole)
    for number, block in enumerate(blocks, 1):
        again = [(*one[:3], one.whole) for one in kept(part, block.end)]
        assert again == [(*one[:3], one.whole) for one in blocks[number:]]
    return blocks


def parts(path: Path, places: Sequence[int]) -> list[Part]:
    ends = [0, *sorted(set(places)), None]
    return [Part(str(path), start or 0, end) for start, end in itertools.pairwise(ends)]


def joined(blocks: list[Block]) -> bytes:
    assert all(block.whole for block in blocks)
    return b"".join(bytes(block.lines) for block in blocks)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lines") / "x"


@given(TEXT, BLOCK, CHUNK)
@example(b"a" * 9 + b"\nb\nc\nd\n", 4, 7)
def test_blocks_are_the_lines_of_the_file(path: Path, text: bytes, block: int, chunk: int) -> None:
    path.write_bytes(text)
    with small(block, chunk):
        blocks = read(Part(str(path)))
    assert joined(blocks) == text.removeprefix(codecs.BOM_UTF8)
    assert all(bytes(one.lines).endswith(b"\n") for one in blocks[:-1])
    assert all(
        len(one.lines) <= block or bytes(one.lines).find(b"\n", block) >= 0 for one in blocks[:-1]
    )


@given(TEXT, CUTS, BLOCK, CHUNK)
@example(b"aa\nbb\ncc\n", [3, 6], 1, 1)
@example(b"aa\nbb\ncc", [4, 5, 7], 100, 100)
@example(b"a\r\nb\r\nc\r\n", [3, 4, 5], 3, 1)
@example(b"a" * 50, [10, 20, 49], 7, 5)
def test_a_plain_file_can_be_cut_anywhere(
    path: Path, text: bytes, cuts: list[int], block: int, chunk: int
) -> None:
    path.write_bytes(text)
    found = b""
    with small(block, chunk):
        for part in parts(path, [cut for cut in cuts if cut < len(text)]):
            blocks = read(part)
            found += joined(blocks)
            for line in blocks[:1]:  # it begins behind the place of the cut, unless in the first
                assert line.place > 0 or not part.start
            if blocks and part.end is not None:
                last = joined(blocks)[:-1].rfind(b"\n") + 1 + blocks[0].place
                assert last <= part.end - part.start
    assert found == text.removeprefix(codecs.BOM_UTF8)


@given(TEXT, CUTS, st.lists(st.booleans(), min_size=9, max_size=9), BLOCK, CHUNK)
@example(b"aa\nbb\ncc\n", [3, 6], [True] * 9, 1, 1)
@example(b"aa\nbb\ncc\n", [4, 4, 5, 6], [True] * 9, 1, 1)
def test_many_frames_can_be_cut_at_each(
    path: Path, text: bytes, cuts: list[int], chosen: list[bool], block: int, chunk: int
) -> None:
    ends = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    frames = [frame(text[start:end], 30) for start, end in itertools.pairwise(ends)]
    frames = [one + SKIPPABLE * skip for one, skip in zip(frames, reversed(chosen), strict=False)]
    path.write_bytes(b"".join(frames))
    places = itertools.accumulate(map(len, frames[:-1]))
    with small(block, chunk):
        cut = [place for place, choose in zip(places, chosen, strict=False) if choose]
        found = [joined(read(part)) for part in parts(path, cut)]
    assert b"".join(found) == text.removeprefix(codecs.BOM_UTF8)


@given(st.lists(st.lists(st.from_regex(rb"[^\n]{0,30}", fullmatch=True), max_size=4)), BLOCK)
def test_zst_blocks_can_be_cut_at_each(path: Path, rows: list[list[bytes]], block: int) -> None:
    coded = [block_of(some) for some in [[b"{}"], *rows]]
    path.write_bytes(b"".join(coded))
    places = list(itertools.accumulate(map(len, coded[:-1])))
    with small(block):
        found = [joined(read(part)) for part in parts(path, places)]
    assert b"".join(found) == b"{}\n" + b"".join(row + b"\n" for some in rows for row in some)


@given(
    st.lists(st.integers(0, 300).map(lambda size: b"x" * size), min_size=1, max_size=6),
    st.booleans(),
    CUTS,
    st.sampled_from([1, 16, 64, LONGEST]),
)
@example([b"", b"x" * 300], False, [], 16)
@example([b"x" * 300, b"y", b"x" * 300, b"z"], True, [2, 150, 301, 303], 16)
@example([b"y", b"x" * 140], False, [], 64)
def test_a_line_too_long_is_marked_and_costs_no_neighbour(
    path: Path, rows: list[bytes], ended: bool, cuts: list[int], block: int
) -> None:
    text = b"\n".join([b"first", *rows]) + b"\n" * ended
    path.write_bytes(text)
    found: list[bytes | None] = []
    with small(block, longest=LONGEST):
        for part in parts(path, [cut for cut in cuts if cut < len(text)]):
            for one in read(part):
                found += bytes(one.lines).removesuffix(b"\n").split(b"\n") if one.whole else [None]
    expected = text.removesuffix(b"\n").split(b"\n")
    assert len(found) == len(expected)
    for one, line in zip(found, expected, strict=True):
        assert one == line or (one is None and len(line) >= LONGEST)
        assert one is None or len(line) <= LONGEST + block + 16


def test_the_mark_of_a_long_line_says_where_it_is(path: Path) -> None:
    path.write_bytes(b"a\n" + b"b" * 500 + b"\nc\n")
    with small(16, longest=LONGEST):
        blocks = [(*one[:3], one.whole) for one in read(Part(str(path)))]
    assert blocks == [(0, b"a\n", 2, True), (2, b"b" * 64, 503, False), (503, b"c\n", 505, True)]


def test_a_long_line_is_held_no_longer_than_it_is_read(path: Path) -> None:
    short, long = b"x" * 99 + b"\n", 4 << 20
    path.write_bytes(short * 1000 + b"y" * long + b"\n" + short * 10_000)
    held: list[int] = []
    sizes: list[int] = []
    with small(1 << 14, 1 << 12, longest=1 << 26):
        tracemalloc.start()
        try:
            for block in lines.blocks(Part(str(path))):
                held.append(tracemalloc.get_traced_memory()[0])
                sizes.append(len(block.lines))
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    where = sizes.index(long + 1)
    assert max(held[:where]) < 1 << 17 and held[-1] < 1 << 17
    assert long < held[where] < long + (1 << 17)
    assert most < 2 * long + (1 << 17)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=9), CHUNK, CHUNK, BLOCK)
def test_which_lines_are_too_long_does_not_depend_on_how_they_are_read(
    path: Path, sizes: list[int], one: int, other: int, block: int
) -> None:
    path.write_bytes(b"\n".join(b"x" * size for size in sizes) + b"\n.")
    told = []
    for chunk in (one, other):
        with small(block, chunk, LONGEST):
            told.append([(b.place, bytes(b.lines), b.whole) for b in kept(Part(str(path)))])
    assert told[0] == told[1]


TORN = b"".join(b"%d\n" % random.Random(7).getrandbits(n) for n in range(1, 3000, 3))
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": frame,
    "zst_blocks": lambda text: b"".join(block_of([row]) for row in text.splitlines()),
}
BLOCK_ENDS = list(itertools.accumulate(len(block_of([row])) for row in TORN.splitlines()))
PACKED = {form: pack(TORN) for form, pack in PACK.items()}


def decodable(form: str, coded: bytes) -> bytes:
    """What a decoder that is given all at once makes of a file that breaks off."""
    if form == "gz":
        return zlib.decompressobj(31).decompress(coded)
    if form == "zst_blocks":
        return b"".join(
            TORN.splitlines(keepends=True)[: sum(end <= len(coded) for end in BLOCK_ENDS)]
        )
    decoder = {"bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}.get(form)
    whole = decoder() if decoder else zstandard.ZstdDecompressor().decompressobj()
    found: bytes = whole.decompress(coded)
    return found


@pytest.mark.parametrize("form", PACK)
@given(st.floats(0, 1), st.sampled_from([350, 1000, 4096, 1 << 20]), st.booleans())
@example(0, 1000, True)
@example(1, 350, True)
def test_a_file_that_breaks_off_gives_every_whole_line(
    path: Path, form: str, share: float, block: int, chunked: bool
) -> None:
    coded = PACKED[form][: 16 + int(share * (len(PACKED[form]) - 17))]
    assume(form != "zst_blocks" or len(coded) not in BLOCK_ENDS)
    path.write_bytes(coded)
    found = b""
    with small(block, 4096 if chunked else 64), pytest.raises(EOFError):
        for one in lines.blocks(Part(str(path))):
            assert one.whole
            found += bytes(one.lines)
    before = decodable(form, coded)
    assert found == before[: before.rfind(b"\n") + 1]
