"""Token files on an object store, copied to this machine's own disk before they are mapped.

Rule: a file is there whole or not at all, and of the processes of a machine one copies while the
others wait. A store is asked for a listing, sizes and whole files, so any that fsspec knows will
do; a dataset's folder is never written again, so a file of the same name and size is the same.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from training import files
from training.config import BadInput

_MANIFEST = "manifest.json"
_WRONG = (
    ValueError, TypeError, NotImplementedError, PermissionError, NotADirectoryError, BadZipFile,
)  # fmt: skip
"""What drivers raise of a URI that will never do. Of a store that is down each has an error of its
own, many of no common kind."""
_AT_ONCE = 8
"""Files on their way together, of a store whose driver can; each costs a buffer of some MB."""


def stage(folder: str, to: Path) -> Path:
    """Where the token files of `folder` lie on this machine: in itself if it is local, else in a
    folder of `to` named by the URI, into which they are copied.

    These are `*.bin`, `*.parquet` and `manifest.json` directly in it. What stands there with the
    size that the store tells is not copied again, so that what was killed goes on; what the store
    does not have is removed. Any number of processes may call it at once. BadInput, in one line,
    where the URI cannot be opened or listed, has no token files, or where a file is not as long as
    listed; OSError where the disk, or the store on the way, fails.
    """
    if "://" not in folder:
        return Path(folder)
    with _told(folder, "opened"):
        system, inner = url_to_fs(folder)
    if isinstance(system, LocalFileSystem):
        return Path(inner)
    copy = to / blake2b(folder.encode(), digest_size=8).hexdigest()
    copy.mkdir(parents=True, exist_ok=True)
    with _alone(copy.with_suffix(".lock")):
        with _told(folder, "listed"):
            sizes = _listed(system, inner)
        if not any(name.endswith(".bin") for name in sizes):
            raise BadInput(f"{folder}: no token files (*.bin) there; make the tokens first")
        _keep_only({_last(name) for name in sizes}, copy)
        _copy_all(system, _missing(sizes, copy), folder, copy)
    return copy


def manifest(folder: str) -> bytes | None:
    """What `manifest.json` of `folder` holds, read there; None where there is none. Raises as
    `stage`."""
    if "://" not in folder:
        path = Path(folder) / _MANIFEST
        return path.read_bytes() if path.exists() else None
    with _told(folder, "opened"):
        system, inner = url_to_fs(folder)
    with _told(folder, "read"), contextlib.suppress(FileNotFoundError):
        content: bytes = system.cat_file(f"{inner.rstrip('/')}/{_MANIFEST}")
        return content
    return None


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds this lock; it ends with its process, however that dies."""
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile holds the file open


def _listed(system: Any, inner: str) -> dict[str, int]:
    """The token files of a folder by the store's names for them, with their bytes."""
    system.invalidate_cache(inner)  # what this process was told before can be old
    found = {
        entry["name"]: entry.get("size")
        for entry in system.ls(inner, detail=True)
        if entry["type"] != "directory" and _is_wanted(_last(entry["name"]))
    }
    # The page that a web server lists a folder on has no sizes.
    unsaid = [name for name, size in found.items() if size is None]
    found |= dict(zip(unsaid, system.sizes(unsaid) if unsaid else [], strict=True))
    for name, size in found.items():
        if size is None:
            raise BadInput(f"{name}: the store does not say how long it is")
    return found


def _is_wanted(name: str) -> bool:
    return name.endswith((".bin", ".parquet")) or name == _MANIFEST


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _keep_only(names: set[str], copy: Path) -> None:
    """Remove what the store does not have: what a killed process left unfinished is among it."""
    for path in copy.iterdir():
        if path.name not in names:
            path.unlink()


def _missing(sizes: Mapping[str, int], copy: Path) -> dict[str, int]:
    found = {path.name: path.stat().st_size for path in copy.iterdir()}
    return {name: size for name, size in sizes.items() if found.get(_last(name)) != size}


def _copy_all(system: Any, sizes: Mapping[str, int], uri: str, copy: Path) -> None:
    # Those on their way together are about as long. A driver that answers one call after another
    # may not be asked by several threads: an archive's has one place to read at.
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    at_once = _AT_ONCE if system.async_impl else 1
    for first in range(0, len(names), at_once):
        few = {name: sizes[name] for name in names[first : first + at_once]}
        with _naming(uri, copy):
            _copy(system, few, copy)


def _copy(system: Any, sizes: Mapping[str, int], copy: Path) -> None:
    """Put these files in place, whole."""
    unfinished = {name: copy / f".{_last(name)}.tmp" for name in sizes}
    try:
        system.get(list(sizes), [str(path) for path in unfinished.values()])
        for name, path in unfinished.items():
            length = path.stat().st_size
            if length != sizes[name]:
                raise BadInput(
                    f"{name}: listed with {sizes[name]} bytes, but {length} came; run the same "
                    "command again when nobody writes to it any more"
                )
            files.to_disk(path)
            path.replace(copy / _last(name))
        files.to_disk(copy)
    finally:
        for path in unfinished.values():
            path.unlink(missing_ok=True)


@contextmanager
def _told(uri: str, what: str) -> Iterator[None]:
    """Of whatever a driver raises, one line: BadInput where it says that the URI is wrong, OSError
    where the store may answer the next time."""
    try:
        yield
    except BadInput:
        raise
    except ImportError as error:
        raise BadInput(f"{uri}: {_said(error)} (pip install it)") from error
    except FileNotFoundError as error:
        raise BadInput(f"{uri}: there is no such folder") from error
    except _WRONG as error:
        raise BadInput(f"{uri}: cannot be {what}: {_said(error)}") from error
    except Exception as error:
        raise OSError(f"{uri}: cannot be {what}: {_said(error)}") from error


@contextmanager
def _naming(uri: str, copy: Path) -> Iterator[None]:
    """What fails underway, with from where to where: a full disk names no file."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            why = (error.strerror or os.strerror(error.errno)).partition("\n")[0]
            raise OSError(error.errno, why, uri, None, str(copy)) from error
        raise OSError(f"{uri}: cannot be copied to {copy}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
