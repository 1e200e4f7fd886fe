"""The files a story begins with, known by their content: a dump renamed is the same dump.

A digest is taken on first read and remembered with the file's size and time of change in
`leaves.json`, so that a second run does not read a terabyte to learn that nothing has changed.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from pipeline.failures import BadInput
from pipeline.stage import Stamp
from pipeline.store import digest_of, write_json


class Leaf(msgspec.Struct, frozen=True):
    """One file, the digest of its content, and its size and time of change as it was taken."""

    path: str
    digest: str
    bytes: int
    mtime_ns: int

    @property
    def stamp(self) -> Stamp:
        """For the task that reads it."""
        return Stamp(self.bytes, self.mtime_ns, self.digest)


class _Seen(msgspec.Struct, frozen=True):
    bytes: int
    mtime_ns: int
    digest: str


def find(patterns: Iterable[str], key: str) -> list[str]:
    """The files these paths and globs name, sorted, each once; BadInput names `key` where one finds
    nothing."""
    found: set[str] = set()
    for pattern in patterns:
        if "://" in pattern:
            raise BadInput(f"{key}: {pattern}: must be a file that is mounted here, not a URI")
        try:
            paths = _matching(Path(pattern)) if _is_glob(pattern) else [Path(pattern)]
            files = [path for path in paths if path.is_file()]
        except ValueError as error:
            raise BadInput(f"{key}: {pattern}: {error}") from None
        except OSError as error:
            raise BadInput(f"{key}: {error.filename or pattern}: {error.strerror}") from None
        if not files:
            raise BadInput(f"{key}: no such file: {pattern}")
        found.update(_readable(path, key) for path in files)
    return sorted(found)


def _readable(path: Path, key: str) -> str:
    """The name of a file that can be read: told before hours are spent on the ones before it."""
    try:
        str(path).encode()
        with path.open("rb", buffering=0) as file:
            file.read(1)
    except UnicodeEncodeError:
        raise BadInput(f"{key}: {str(path)!a}: its name is not UTF-8") from None
    except OSError as error:
        raise BadInput(f"{key}: {path}: cannot be read: {error.strerror}") from None
    return str(path)


def _is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[") and not Path(pattern).exists()


def _matching(pattern: Path) -> list[Path]:
    return list(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))


def digest(paths: Iterable[str], cache: Path) -> list[Leaf]:
    """Each different content among these files once, in order of digest, by the first path that has
    it. BadInput where one cannot be read to its end."""
    seen = _load(cache)
    now = {path: _digest_of(Path(path), seen.get(path)) for path in paths}
    if cache.parent.exists() and any(seen.get(path) != value for path, value in now.items()):
        write_json(cache, msgspec.to_builtins({**seen, **now}))
    by_digest: dict[str, str] = {}
    for path in sorted(now):
        by_digest.setdefault(now[path].digest, path)
    return [
        Leaf(path, value, now[path].bytes, now[path].mtime_ns)
        for value, path in sorted(by_digest.items())
    ]


def _load(cache: Path) -> dict[str, _Seen]:
    if not cache.exists():
        return {}
    try:
        return msgspec.json.decode(cache.read_bytes(), type=dict[str, _Seen])
    except msgspec.DecodeError:
        return {}  # only a memory: what it held is read again


def _digest_of(path: Path, seen: _Seen | None) -> _Seen:
    try:
        status = path.stat()
        if seen and (seen.bytes, seen.mtime_ns) == (status.st_size, status.st_mtime_ns):
            return seen
        return _Seen(status.st_size, status.st_mtime_ns, digest_of(path))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
