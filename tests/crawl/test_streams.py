"""Files of every compression, whole, many-framed, cut off and damaged."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from crawl import streams
from crawl.schema import BadInput

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


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 400))
def test_many_frames_are_one_stream(pieces: list[bytes], size: int) -> None:
    packer = zstandard.ZstdCompressor(level=1)
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    coded = b"".join(packer.compress(piece) + skippable for piece in pieces)
    stream = io.BufferedReader(streams.Frames(io.BytesIO(coded)))
    assert b"".join(iter(lambda: stream.read(size), b"")) == b"".join(pieces)


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
