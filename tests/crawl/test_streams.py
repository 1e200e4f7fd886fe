"""Files of every compression, whole, many-framed, cut off and damaged."""

import bz2
import gc
import gzip
import io
import itertools
import lzma
import os
import random
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import fsspec
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from crawl import streams
from crawl.schema import BadInput
from crawl.streams import Opened, Part

TEXT = b"".join(b'{"id": "%d"}\n' % n for n in range(20000))
PACK: dict[str, Callable[[bytes], bytes]] = {
    "zst": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "bz2": bz2.compress,
    "gz": gzip.compress,
}


@pytest.mark.parametrize("form", PACK)
@pytest.mark.parametrize("name", ["x.{form}", "x.dump"])
def test_the_first_bytes_tell_the_form(tmp_path: Path, form: str, name: str) -> None:
    path = tmp_path / name.format(form=form)
    path.write_bytes(PACK[form](TEXT))
    with streams.open_decoded(str(path)) as stream:
        assert stream.read() == TEXT


@pytest.mark.parametrize("form", PACK)
def test_a_file_that_breaks_off_is_not_taken_for_a_short_one(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"x.{form}"
    path.write_bytes(PACK[form](TEXT)[:-9])
    with pytest.raises(EOFError), streams.open_decoded(str(path)) as stream:
        while stream.read(4096):
            pass


@pytest.mark.parametrize("form", PACK)
def test_a_damaged_file_is_told(tmp_path: Path, form: str) -> None:
    data = bytearray(PACK[form](TEXT))
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xa5" * 64
    path = tmp_path / f"x.{form}"
    path.write_bytes(data)
    with pytest.raises((EOFError, *streams.DAMAGE)), streams.open_decoded(str(path)) as stream:
        while stream.read(4096):
            pass


def test_a_window_of_two_gigabytes_is_read(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=31, compression_level=1)
    path = tmp_path / "x.zst"
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(packer.compress(TEXT) + packer.flush())
    with streams.open_decoded(str(path)) as stream:
        assert stream.read() == TEXT


def member_of(archive: Path, content: bytes, name: str = "in/x.zst") -> None:
    """An archive in the form that its name says, with one member."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr(name, content)
        return
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as tarred:
        told = tarfile.TarInfo(name)
        told.size = len(content)
        tarred.addfile(told, io.BytesIO(content))


CHAINS = [
    ("a.zip", "zip://in/x.zst::file://{folder}/a.zip"),
    ("a.zip", "zip://in/x.zst::{folder}/a.zip"),
    ("a.zip", "zip://in/x.zst::memory:/{folder}/a.zip"),
    ("a.zip", "zip://in/x.zst::simplecache::memory:/{folder}/a.zip"),
    ("a.zip", "simplecache::zip://in/x.zst::file://{folder}/a.zip"),
    ("a.tar", "tar://in/x.zst::file://{folder}/a.tar"),
    ("a.tar.gz", "tar://in/x.zst::file://{folder}/a.tar.gz"),
    ("x.zst", "simplecache::memory:/{folder}/x.zst"),
    ("x.zst", "simplecache://::memory:/{folder}/x.zst"),
    ("x.zst", "dir://x.zst::file://{folder}"),
]


@pytest.mark.parametrize("content", [PACK["zst"](TEXT), b"no frame"], ids=["whole", "misnamed"])
@pytest.mark.parametrize("name, chain", CHAINS)
def test_a_chain_of_uris_is_read_like_any_other(
    tmp_path: Path, name: str, chain: str, content: bytes
) -> None:
    if name == "x.zst":
        (tmp_path / name).write_bytes(content)
    else:
        member_of(tmp_path / name, content)
    fsspec.filesystem("memory").pipe(f"{tmp_path}/{name}", (tmp_path / name).read_bytes())
    path = chain.format(folder=tmp_path)
    if content == b"no frame":
        with pytest.raises(BadInput, match="does not begin as its name says"):
            streams.open_decoded(path)
        return
    opened = Opened(Part(path))
    gc.collect()
    with closing(opened.stream):
        assert b"".join(iter(opened.read_some, b"")) == TEXT
    assert opened.bytes_read == len(content)
    with streams.open_plain(path) as raw:
        gc.collect()
        assert raw.seek(-100, io.SEEK_END) == len(content) - 100
        assert raw.read() == content[-100:]
        assert raw.seek(7) == 7 and raw.read(20) == content[7:27] and raw.tell() == 27


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc here")
@pytest.mark.parametrize("uri", ["zip://in/x.zst::file://{}", "file://{}"])
def test_a_file_at_a_uri_is_closed_with_what_it_lies_in(tmp_path: Path, uri: str) -> None:
    member_of(tmp_path / "a.zip", TEXT)
    raw = streams.open_plain(uri.format(tmp_path / "a.zip"))
    held = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert str(tmp_path / "a.zip") in held
    raw.close()
    held = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert str(tmp_path / "a.zip") not in held


@pytest.mark.parametrize("name", ["zip", "tar", "tar.gz"])
def test_what_is_no_whole_archive_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"a.{name}"
    path.write_bytes(TEXT)
    if name == "tar.gz":
        member_of(path, random.Random(7).randbytes(100_000))
        os.truncate(path, 50_000)
    uri = f"{name[:3]}://in/x.zst::file://{path}"
    with pytest.raises(BadInput, match=r"cannot be opened: \w.*$") as raised:
        streams.open_plain(uri)
    assert str(raised.value).startswith(uri) and "\n" not in str(raised.value)


def test_a_member_that_is_encrypted_is_named_in_one_line(tmp_path: Path) -> None:
    member_of(tmp_path / "a.zip", TEXT)
    content = (tmp_path / "a.zip").read_bytes()
    entry = content.rindex(b"PK\x01\x02")
    locked = bytearray(content)
    locked[6] = locked[entry + 8] = 1  # the flag of both headers
    (tmp_path / "a.zip").write_bytes(locked)
    with pytest.raises(BadInput, match=r"cannot be opened: .*encrypted"):
        streams.open_plain(f"zip://in/x.zst::file://{tmp_path}/a.zip")


class SaysLittle(io.BytesIO):
    """As SFTP's files: no word of where a seek has led, and fewer bytes than were asked for."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        super().seek(offset, whence)
        return cast(int, None)

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size, 3) if size and size > 0 else size)


def test_a_storage_may_say_little(monkeypatch: pytest.MonkeyPatch) -> None:
    content = PACK["zst"](TEXT)
    monkeypatch.setattr(MemoryFileSystem, "_open", lambda *_, **__: SaysLittle(content))
    with streams.open_decoded("memory://x.zst") as stream:
        assert stream.read() == TEXT
    with streams.open_plain("memory://x.zst") as raw:
        assert raw.seekable() and raw.seek(len(content) - 9) == len(content) - 9
        assert raw.seek(2, io.SEEK_CUR) == len(content) - 7 and raw.read(9) == content[-7:]


def test_a_name_on_a_disk_may_look_like_a_chain(tmp_path: Path) -> None:
    (tmp_path / "a::b.zst").write_bytes(PACK["zst"](TEXT))
    with streams.open_decoded(f"{tmp_path}/a::b.zst") as stream:
        assert stream.read() == TEXT


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no /proc here")
def test_a_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(BadInput, match=r"^/proc/self/mem: cannot be opened: I[^:]*$"):
        streams.open_plain("/proc/self/mem")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.zst", None),
        ("empty.zst", b""),
        ("x.zst", b"<html>"),
        ("x.ZST", b"<html>"),
        ("x.gz", b"\x28\xb5\x2f\xfd"),
        ("x.zst_blocks", b"\x28\xb5\x2f\xfd" + b"\x00" * 9),
        ("x.zst", b"\x09\x00\x00\x00\x28\xb5\x2f\xfd"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as raised:
        streams.open_decoded(str(path))
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_a_file_may_begin_with_a_frame_that_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.zst"
    path.write_bytes(b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + PACK["zst"](TEXT))
    with streams.open_decoded(str(path)) as stream:
        assert stream.read() == TEXT


def block(numbers: Sequence[int], content: bytes) -> bytes:
    """A block of a `.zst_blocks` file with this table: how many rows, place and size of each."""
    table = b"".join(number.to_bytes(4, "little") for number in numbers)
    coded = PACK["zst"](table + content)
    return len(coded).to_bytes(4, "little") + coded


def block_of(rows: Sequence[bytes]) -> bytes:
    starts = itertools.accumulate(map(len, rows), initial=0)
    pairs = zip(starts, map(len, rows), strict=False)
    return block([len(rows), *itertools.chain.from_iterable(pairs)], b"".join(rows))


ROWS = st.lists(st.lists(st.binary(max_size=40), max_size=5), min_size=1, max_size=5)
BLOCK = block_of([b"one", b"two", b"three"])


def as_blocks(path: Path, content: bytes) -> bytes:
    path.write_bytes(content)
    with streams.open_decoded(str(path)) as stream:
        return b"".join(iter(lambda: stream.read(7), b""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


@given(ROWS, st.sampled_from(["x.zst_blocks", "x.dump"]))
def test_rows_of_zst_blocks_are_lines(folder: Path, rows: list[list[bytes]], name: str) -> None:
    found = as_blocks(folder / name, b"".join(map(block_of, rows)))
    assert found == b"".join(row + b"\n" for some in rows for row in some)


@given(st.integers(8, 3 * len(BLOCK) - 1).filter(lambda size: size % len(BLOCK)))
def test_zst_blocks_that_break_off_are_not_taken_for_short_ones(folder: Path, size: int) -> None:
    path = folder / "x.zst_blocks"
    path.write_bytes((BLOCK * 3)[:size])
    opened = Opened(Part(str(path)))
    found = b""
    with pytest.raises(EOFError):
        while some := opened.read_some():
            found += some
    assert found == b"one\ntwo\nthree\n" * (size // len(BLOCK))


@pytest.mark.parametrize(
    ("numbers", "content"),
    [
        ([3, 0, 3, 3, 3], b"onetwo"),
        ([2**32 - 1, 0, 3], b"one"),
        ([1, 0, 4], b"one"),
        ([1, 2**32 - 1, 2**32 - 1], b"one"),
        ([2, 0, 3, 3, 4], b"onetwo"),
        ([1, 0], b""),
    ],
)
def test_a_table_that_contradicts_its_rows_is_told(
    tmp_path: Path, numbers: list[int], content: bytes
) -> None:
    path = tmp_path / "x.zst_blocks"
    path.write_bytes(BLOCK + block(numbers, content))
    opened = Opened(Part(str(path)))
    assert opened.read_some() == b"one\ntwo\nthree\n"
    with pytest.raises(streams.DAMAGE):
        opened.read_some()


@given(st.lists(st.integers(0, 12), max_size=7), st.binary(max_size=12))
def test_any_table_of_rows_is_true_or_told(folder: Path, table: list[int], content: bytes) -> None:
    try:
        found = as_blocks(folder / "x.zst_blocks", block([len(table) // 2, *table], content))
    except streams.DAMAGE:
        return
    held = b"".join(number.to_bytes(4, "little") for number in table[len(table) // 2 * 2 :])
    spans = zip(table[::2], table[1::2], strict=False)
    expected = [(held + content)[place : place + size] for place, size in spans]
    assert [len(row) for row in expected] == table[1::2]
    assert found == b"".join(row + b"\n" for row in expected)


@pytest.mark.parametrize(
    "damaged",
    [
        BLOCK[:4] + b"\x28\xb5\x2f\xfd" + b"\xff" * (len(BLOCK) - 8),
        BLOCK + b"\x00" * 4,
        BLOCK + (20).to_bytes(4, "little") + b"x" * 20,
    ],
)
def test_damaged_zst_blocks_are_told(tmp_path: Path, damaged: bytes) -> None:
    with pytest.raises((EOFError, *streams.DAMAGE)):
        as_blocks(tmp_path / "x.zst_blocks", damaged)


def drained(opened: Opened) -> tuple[bytes, list[int]]:
    found, read = b"", [opened.bytes_read]
    while some := opened.read_some():
        found += some
        read.append(opened.bytes_read)
    return found, [*read, opened.bytes_read]


@pytest.mark.parametrize("form", [*PACK, "zst_blocks", "plain"])
def test_bytes_read_are_those_of_the_file(tmp_path: Path, form: str) -> None:
    pack = {**PACK, "zst_blocks": lambda text: block_of(text.splitlines()), "plain": bytes}[form]
    path = tmp_path / "x"
    path.write_bytes(pack(TEXT))
    found, read = drained(opened := Opened(Part(str(path))))
    assert found == TEXT and opened.boundary is None
    assert read == sorted(read) and read[0] == 0 and read[-1] == path.stat().st_size


@pytest.mark.parametrize("form", ["zst", "zst_blocks"])
@given(ROWS, st.data())
def test_a_part_knows_where_its_content_ends(
    folder: Path, form: str, rows: list[list[bytes]], data: st.DataObject
) -> None:
    contents = [b"".join(row + b"\n" for row in some) for some in [[b"{}"], *rows]]
    coded = [PACK[form](text) for text in contents] if form == "zst" else [
        block_of(some) for some in [[b"{}"], *rows]
    ]  # fmt: skip
    path = folder / f"x.{form}"
    path.write_bytes(b"".join(coded))
    ends = list(itertools.accumulate(map(len, coded)))
    first = data.draw(st.integers(0, len(rows)))
    last = data.draw(st.integers(first, len(rows)))
    start = ends[first] - len(coded[first])
    opened = Opened(Part(str(path), start, ends[last]))
    assert opened.boundary is None
    found, read = drained(opened)
    assert found == b"".join(contents[first:])
    assert opened.boundary == sum(map(len, contents[first : last + 1]))
    assert read[0] == 0 and read[-1] == ends[-1] - start


def test_a_part_of_a_plain_file_knows_its_end_at_once(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(TEXT)
    opened = Opened(Part(str(tmp_path / "x"), 7, 90))
    assert opened.boundary == 83
    assert opened.read_some() == TEXT[7 : 7 + opened.bytes_read]
    assert Opened(Part(str(tmp_path / "x"), 7)).boundary is None
