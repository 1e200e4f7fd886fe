"""Files that outlive a crash: on the disk before anything is built on them."""

import errno
import hashlib
import os
import secrets
from pathlib import Path

_UNSYNCED = (errno.EINVAL, errno.ENOTSUP)
"""What some network and FUSE file systems answer, which cannot sync a folder."""


def write(path: Path, content: bytes) -> None:
    """Put a file in place whole: under another name, synced, renamed. Several processes may write
    the same one at once; the last wins."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        unfinished.write_bytes(content)
        to_disk(unfinished)
        unfinished.replace(path)
        to_disk(path.parent)
    except OSError as error:  # a disk that is full or fails names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Sync: of a file its content, of a folder the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in _UNSYNCED:
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
