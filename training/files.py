"""Files that outlive a crash: on the disk before anything is built on them."""

import errno
import hashlib
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from training.config import BadInput

_T = TypeVar("_T")
_UNSYNCED = (errno.EINVAL, errno.ENOTSUP)
"""What some network and FUSE file systems answer, which cannot sync a folder."""


def write(path: Path, content: bytes) -> None:
    """Put a file in place whole: under another name, synced, renamed. Several processes may write
    the same one at once; the last wins."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        # Opened before: who waits for the file may rename its folder as soon as it is there.
        with _opened(path.parent) as folder:
            unfinished.write_bytes(content)
            to_disk(unfinished)
            unfinished.replace(path)
            _sync(folder, path.parent, may_not=_UNSYNCED)
    except OSError as error:  # a disk that is full or fails names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: Path, shape: type[_T]) -> _T:
    """Our own JSON document at this path; BadInput where it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=shape)
    except ValueError as error:
        raise BadInput(f"{path} is damaged ({error}); remove it") from error


def to_disk(path: Path) -> None:
    """Sync: of a file its content, of a folder the names in it."""
    with _opened(path) as descriptor:
        _sync(descriptor, path, may_not=_UNSYNCED if path.is_dir() else ())


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(descriptor: int, path: Path, may_not: Collection[int]) -> None:
    """Sync what is open; it is called `path`. With these errors it cannot be."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in may_not:
            raise OSError(error.errno, error.strerror, str(path)) from error


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
