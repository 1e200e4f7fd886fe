"""A file is the old one or the new one, whatever fails on the way."""

import errno
import os
import stat
from pathlib import Path

import pytest

from training import files


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


def test_what_is_not_on_the_disk_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(tmp_path / "file", b"old")
    failing(errno.EIO, monkeypatch, folders=False)
    with pytest.raises(OSError, match="Input/output"):
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
