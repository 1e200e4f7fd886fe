"""A file is the old one or the new one, whatever fails on the way."""

import errno
import hashlib
import os
import resource
import signal
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from training import files
from training.config import BadInput


def failing(code: int, monkeypatch: pytest.MonkeyPatch, *, folders: bool) -> None:
    """Let the sync of files, or of folders, fail."""
    sync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        files.write(tmp_path / "file", content)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": content}


@contextmanager
def small_files() -> Iterator[None]:
    """No file grows past 100 bytes, as on a full disk."""
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, heard)


def test_what_does_not_fit_leaves_the_old_file_and_names_it(tmp_path: Path) -> None:
    files.write(tmp_path / "file", b"old")
    with small_files(), pytest.raises(OSError, match=r"too large: '.*/file'$"):
        files.write(tmp_path / "file", b"new" * 100)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_of_several_writers_one_wins_whole(tmp_path: Path) -> None:
    contents = [str(writer).encode() * 5000 for writer in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(files.write, tmp_path / "file", each) for each in contents]:
            done.result()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() in contents


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    contents = [bytes([writer]) * 100_000 for writer in range(20)]
    files.write(tmp_path / "file", contents[0])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [files.write(tmp_path / "file", each) for each in contents])
        while not writing.done():
            assert (tmp_path / "file").read_bytes() in contents
        writing.result()
    assert (tmp_path / "file").read_bytes() == contents[-1]


def test_the_content_is_synced_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, seen = os.fsync, []

    def look(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        seen.append(("folder" if folder else "file", (tmp_path / "file").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    files.write(tmp_path / "file", b"new")
    assert seen == [("file", False), ("folder", True)]


def test_whoever_waits_for_a_file_may_rename_its_folder_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first rank does with a checkpoint's, when the others have told that they are done."""
    put = Path.replace

    def rename(self: Path, target: Path) -> Path:
        found = put(self, target)
        put(target.parent, tmp_path / "whole")
        return found

    monkeypatch.setattr(Path, "replace", rename)
    (tmp_path / "unfinished").mkdir()
    files.write(tmp_path / "unfinished" / "file", b"new")
    assert (tmp_path / "whole" / "file").read_bytes() == b"new"


def test_a_hash_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 10**6)
    assert files.sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 10**6).hexdigest()
    with pytest.raises(FileNotFoundError):
        files.sha256(tmp_path / "nowhere")


def test_what_is_not_on_the_disk_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(tmp_path / "file", b"old")
    failing(errno.EIO, monkeypatch, folders=False)
    with pytest.raises(OSError, match=r"Input/output error: '.*/file'$"):
        files.write(tmp_path / "file", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


@pytest.mark.parametrize(("code", "told"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_no_one_can_sync_stops_no_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: bool
) -> None:
    failing(code, monkeypatch, folders=True)
    if told:
        with pytest.raises(OSError, match="Input/output"):
            files.write(tmp_path / "file", b"new")
    else:
        files.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL])
def test_a_file_that_cannot_be_synced_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """What a folder is forgiven, a file is not."""
    (tmp_path / "file").write_bytes(b"content")
    failing(code, monkeypatch, folders=False)
    with pytest.raises(OSError, match=r"'.*/file'$"):
        files.to_disk(tmp_path / "file")


@pytest.mark.parametrize("content", [b"", b"{", b'"3"', b"\xff", b'"\xff"'])
def test_a_damaged_document_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BadInput, match=r"/file is damaged \(.*\); remove it$"):
        files.read(tmp_path / "file", list[int])
    (tmp_path / "file").write_bytes(b"[3]")
    assert files.read(tmp_path / "file", list[int]) == [3]
