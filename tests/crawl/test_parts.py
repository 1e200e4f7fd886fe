"""Where files are cut: at frames that were written, at blocks, anywhere, or not at all."""

import bz2
import gzip
import itertools
import lzma
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from crawl import dumps, lines, parts
from crawl.schema import BadInput
from crawl.streams import Part
from pipeline.stage import Account

POSTS = b"".join(b'{"id": "%d", "url": "http://a.com/%d"}\n' % (n, n * n) for n in range(400))
PART = 300
SKIPPABLE = b"\x5f\x2a\x4d\x18\x05\x00\x00\x00abcde"
SKIPPED_MAGIC = b"\x50\x2a\x4d\x18\x08\x00\x00\x00\x28\xb5\x2f\xfd\x00\x00\x00\x00"


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_BYTES", PART)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


def written(path: Path, content: bytes) -> list[int]:
    path.write_bytes(content)
    return parts.places(str(path), len(content))


def first_behind(pieces: Sequence[bytes]) -> list[int]:
    """The first beginning of a piece that is so many bytes behind the last place, and so on."""
    found = [0]
    for start in itertools.accumulate(map(len, pieces[:-1])):
        if start - found[-1] >= PART:
            found.append(start)
    return found[1:]


def written_by_hand(single: bool, size_flag: int, blocks: Sequence[tuple[int, int]]) -> bytes:
    """A frame of raw (0) and repeated (1) blocks, with the header that is asked for."""
    content = sum(size for _, size in blocks)
    size_bytes = {0: int(single), 1: 2, 2: 4, 3: 8}[size_flag]
    size_flag, size_bytes = (2, 4) if size_bytes == 1 and content > 255 else (size_flag, size_bytes)
    size_flag, size_bytes = (2, 4) if size_bytes == 2 and content < 256 else (size_flag, size_bytes)
    told = content - 256 if size_bytes == 2 else content
    head = bytes([size_flag << 6 | single << 5]) + (b"" if single else b"\x58")
    head += told.to_bytes(8, "little")[:size_bytes]
    coded = b"".join(
        (size << 3 | kind << 1 | (number == len(blocks))).to_bytes(3, "little")
        + (b"\n" if kind else b"\x28\xb5\x2f\xfd\n"[:5] * (size // 5) + b"\n" * (size % 5))
        for number, (kind, size) in enumerate(blocks, 1)
    )
    return b"\x28\xb5\x2f\xfd" + head + coded


def frame(content: bytes, *, checksum: bool, told: bool, level: int) -> bytes:
    packer = zstandard.ZstdCompressor(
        level=level, write_checksum=checksum, write_content_size=told
    )  # fmt: skip
    if told:
        return packer.compress(content)
    stream = packer.compressobj()
    return stream.compress(content) + stream.flush()


CONTENT = st.one_of(
    st.integers(0, 300_000).map(lambda size: b"\n" * size),
    st.randoms(use_true_random=False).map(lambda source: source.randbytes(source.randrange(900))),
    st.integers(0, 400).map(lambda posts: POSTS[: posts * 40]),
)
FRAME = st.one_of(
    st.builds(frame, CONTENT, checksum=st.booleans(), told=st.booleans(), level=st.integers(-5, 5)),
    st.sampled_from([SKIPPABLE, SKIPPED_MAGIC, SKIPPABLE * 90]),
    st.builds(
        written_by_hand,
        st.booleans(),
        st.integers(0, 3),
        st.lists(st.tuples(st.integers(0, 1), st.integers(0, 900)), min_size=1, max_size=4),
    ),
)
FIRST = frame(POSTS[:80], checksum=True, told=True, level=1)


def block(content: bytes) -> bytes:
    """A block of a `.zst_blocks` file with one row."""
    table = b"".join(number.to_bytes(4, "little") for number in (1, 0, len(content)))
    coded = frame(table + content, checksum=False, told=True, level=1)
    return len(coded).to_bytes(4, "little") + coded


@given(st.lists(FRAME, max_size=9))
@example([SKIPPABLE * 90, SKIPPABLE])
@example([written_by_hand(True, 0, [(1, 200)]), written_by_hand(False, 0, [(0, 400), (1, 0)])] * 2)
def test_a_zstd_file_is_cut_where_frames_begin(folder: Path, frames: list[bytes]) -> None:
    frames = [FIRST, *itertools.chain.from_iterable(_apart(one) for one in frames)]
    assert written(folder / "x.zst", b"".join(frames)) == first_behind(frames)
    for one in frames:  # what was written by hand is a frame for the library too
        reader = zstandard.ZstdDecompressor().decompressobj()
        reader.decompress(one)
        assert reader.eof and not reader.unused_data


def _apart(frames: bytes) -> list[bytes]:
    """The frames of a row of equal ones that are passed over."""
    return [SKIPPABLE] * 90 if frames == SKIPPABLE * 90 else [frames]


@given(st.lists(st.binary(max_size=400), max_size=9))
def test_zst_blocks_are_cut_where_blocks_begin(folder: Path, contents: list[bytes]) -> None:
    coded = [block(content) for content in [POSTS[:38], *contents]]
    assert written(folder / "x.zst_blocks", b"".join(coded)) == first_behind(coded)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "zst": lambda data: frame(data, checksum=True, told=True, level=-5),
    "gz": lambda data: gzip.compress(data) + gzip.compress(data),
    "bz2": lambda data: bz2.compress(data) + bz2.compress(data),
    "xz": lambda data: lzma.compress(data) + lzma.compress(data),
}


@pytest.mark.parametrize("form", PACK)
def test_other_forms_and_one_frame_are_one_part(tmp_path: Path, form: str) -> None:
    coded = PACK[form](POSTS)
    assert len(coded) > 2 * PART and written(tmp_path / f"x.{form}", coded) == []


@pytest.mark.parametrize("line", [b'{"id": "1", "url": "http://a.com/"}\n', b"http://a.com/x\n"])
def test_plain_lines_are_cut_anywhere(tmp_path: Path, line: bytes) -> None:
    assert written(tmp_path / "x", line * 30) == list(range(PART, len(line) * 30, PART))
    assert written(tmp_path / "x", (line * 30)[:PART]) == []


def test_tables_are_one_part(tmp_path: Path) -> None:
    assert written(tmp_path / "x.csv", b"url,score\n" + b"http://a.com/,3\n" * 100) == []
    assert written(tmp_path / "x", b"score\turl\n" + b"3\thttp://a.com/\n" * 100) == []
    pq.write_table(pa.table({"url": [f"http://a.com/{n}" for n in range(900)]}), tmp_path / "x.pq")
    size = (tmp_path / "x.pq").stat().st_size
    assert size > PART and parts.places(str(tmp_path / "x.pq"), size) == []


def test_a_compressed_table_is_one_part(tmp_path: Path) -> None:
    rows = [b"url,score\n"] + [b"http://a.com/%d,3\n" % n for n in range(200)]
    coded = b"".join(PACK["zst"](row) for row in rows)
    assert written(tmp_path / "x.csv.zst", coded) == []


@pytest.mark.parametrize("name", ["x.zst", "x.zst_blocks", "x.ndjson"])
def test_where_a_file_lies_does_not_say_where_it_is_cut(tmp_path: Path, name: str) -> None:
    pieces = {
        "x.zst": FIRST * 60,
        "x.zst_blocks": block(POSTS[:38]) * 60,
        "x.ndjson": POSTS[:38] * 60,
    }[name]
    (tmp_path / name).write_bytes(pieces)
    store = fsspec.filesystem("memory")
    store.pipe(f"/parts/{name}", pieces)
    try:
        found = parts.places(f"memory://parts/{name}", len(pieces))
    finally:
        store.rm("/parts", recursive=True)
    assert found == parts.places(str(tmp_path / name), len(pieces)) != []


@given(st.lists(st.integers(1, 10**12), unique=True, min_size=1).map(sorted))
def test_parts_cover_the_file(numbers: list[int]) -> None:
    *places, size = numbers
    found = parts.between("x", size, places)
    assert sum(bytes_ for _, bytes_ in found) == size and all(bytes_ > 0 for _, bytes_ in found)
    assert found[0][0].start == 0 and found[-1][0].end is None
    assert all(one.end == other.start for (one, _), (other, _) in itertools.pairwise(found))
    assert [part.start for part, _ in found[1:]] == places


@given(st.integers(0, 60 * len(FIRST)), st.one_of(st.binary(max_size=40), st.just(b"\xff" * 900)))
@example(0, b"\x28\xb5\x2f\xfd" + b"\xff" * 900)
@example(0, SKIPPABLE[:4] + b"\xff" * 900)
def test_a_damaged_tail_moves_no_place_before_it(folder: Path, kept: int, tail: bytes) -> None:
    frames = [FIRST] * (kept // len(FIRST))
    content = FIRST + b"".join(frames) + FIRST[: kept % len(FIRST)] + tail
    found = written(folder / "x.zst", content)
    sound = first_behind([FIRST, *frames, b"?"])
    intact = [place for place in found if place <= len(FIRST) * (1 + len(frames))]
    assert intact == [place for place in sound if place < len(content)]
    assert found == sorted(set(found)) and all(place < len(content) for place in found)


@given(
    st.binary(max_size=900),
    st.sampled_from([b"\x28\xb5\x2f\xfd", b"\x09\x00\x00\x00\x28\xb5\x2f\xfd"]),
)
def test_any_bytes_have_places_or_are_told(folder: Path, tail: bytes, head: bytes) -> None:
    try:
        found = written(folder / "x", head + tail)
    except BadInput:
        return
    assert found == sorted(set(found)) and all(place < len(head + tail) for place in found)


@pytest.mark.parametrize("form", ["zst", "zst_blocks", "ndjson"])
def test_the_parts_of_a_dump_are_its_posts(tmp_path: Path, form: str) -> None:
    rows = POSTS.splitlines(keepends=True)
    packed = {
        "zst": b"".join(
            PACK["zst"](b"".join(rows[n : n + 9])) + SKIPPABLE for n in range(0, 400, 9)
        ),
        "zst_blocks": b"".join(block(row[:-1]) for row in rows),
        "ndjson": POSTS,
    }
    path = tmp_path / f"x.{form}"
    found = written(path, packed[form])
    assert len(found) > 3
    cut = [part for part, _ in parts.between(str(path), len(packed[form]), found)]
    read = [bytes(block.lines) for part in cut for block in lines.blocks(part)]
    assert b"".join(read) == POSTS
    posts = [dumps.read(part, Account(), accept_truncated=False) for part in cut]
    ids = [post.id for some in posts for found in some for post in found.rows]
    assert ids == [str(number) for number in range(400)]


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        parts.places(str(tmp_path / "none.zst"), PART + 1)
    assert parts.between("x", 5, []) == [(Part("x"), 5)]
