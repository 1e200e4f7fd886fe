"""The files a story begins with, known by their content: a dump renamed is the same dump.

A digest is taken on first read and remembered with the file's size and mark of change in
`leaves.json`, so that a second run does not read a terabyte to learn that nothing has changed. So
is where the file can be cut into parts.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pipeline import leaf
from pipeline.failures import BadInput
from pipeline.stage import Item, Stamp
from pipeline.store import write_json

SECRET = re.compile(r"[\w+.-]+://[^/@]*:[^/@]*@")


class Leaf(msgspec.Struct, frozen=True):
    """One file, the digest of its content, and its size and mark of change as it was taken."""

    path: str
    digest: str
    bytes: int
    mark: str

    @property
    def stamp(self) -> Stamp:
        """For the task that reads it."""
        return Stamp(self.bytes, self.mark, self.digest)

    @property
    def item(self) -> Item:
        """The whole of it, for one task."""
        return Item(self.path, self.path, self.bytes, self.digest, self.stamp)


class _Seen(msgspec.Struct, frozen=True):
    bytes: int
    mark: str
    digest: str = msgspec.field(name="sha256")
    places: list[int] | None = None
    """Where it can be cut, by a rule of that name; None where nobody has asked."""
    rule: str = ""


def find(patterns: Iterable[str], key: str) -> list[str]:
    """The files these paths, globs and URIs name, sorted, each once; BadInput names `key` where one
    finds nothing."""
    found: set[str] = set()
    for pattern in patterns:
        if any(map(SECRET.match, [pattern, *pattern.split("::")])):
            raise BadInput(
                f"{key}: a URI must not hold a password: it would be recorded; give it to fsspec's "
                "own configuration"
            )
        with _told(key, pattern):
            files = _remote(pattern) if leaf.is_uri(pattern) else _local(pattern)
        if not files:
            raise BadInput(f"{key}: no such file: {pattern}")
        found.update(_readable(path, key) for path in files)
    return sorted(found)


@contextmanager
def _told(key: str, pattern: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise BadInput(f"{key}: {pattern}: {_said(error)} (pip install it)") from None
    except ValueError as error:
        raise BadInput(f"{key}: {pattern}: {_said(error)}") from None
    except OSError as error:
        raise BadInput(
            f"{key}: {error.filename or pattern}: {error.strerror or _said(error)}"
        ) from None


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _local(pattern: str) -> list[str]:
    paths = _matching(Path(pattern)) if _is_glob(pattern) else [Path(pattern)]
    return [str(path) for path in paths if path.is_file()]


def _remote(pattern: str) -> list[str]:
    try:
        names = leaf.matching(pattern) if any(s in pattern for s in "*?[") else [pattern]
        return [name for name in names if leaf.look(name)]
    except (ImportError, ValueError, OSError):
        raise
    except Exception as error:
        raise OSError(f"cannot be asked: {_said(error)}") from error


def _readable(path: str, key: str) -> str:
    """The name of a file that can be read: told before hours are spent on the ones before it."""
    try:
        path.encode()
        with leaf.opened(path) as file:
            file.read(1)
    except UnicodeEncodeError:
        raise BadInput(f"{key}: {path!a}: its name is not UTF-8") from None
    except OSError as error:
        raise BadInput(f"{key}: {path}: cannot be read: {error.strerror or _said(error)}") from None
    except Exception as error:
        if not leaf.is_uri(path):
            raise
        raise BadInput(f"{key}: {path}: cannot be read: {_said(error)}") from None
    return path


def _is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[") and not Path(pattern).exists()


def _matching(pattern: Path) -> list[Path]:
    return list(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))


def digest(paths: Iterable[str], cache: Path) -> list[Leaf]:
    """Each different content among these files once, in order of digest, by the first path that has
    it. BadInput where one cannot be read to its end."""
    seen = _load(cache)
    now = {path: _digest_of(path, seen.get(path)) for path in paths}
    _remember(cache, seen, now)
    by_digest: dict[str, str] = {}
    for path in sorted(now):
        by_digest.setdefault(now[path].digest, path)
    return [
        Leaf(path, value, now[path].bytes, now[path].mark)
        for value, path in sorted(by_digest.items())
    ]


def cut(
    leaves: Sequence[Leaf], cache: Path, rule: str, places: Callable[[str, int], list[int]]
) -> dict[str, list[int]]:
    """Where each file can be cut, by its path: what `places` says of it and its size, remembered
    under the name of the rule."""
    seen = _load(cache)
    now = {}
    for one in leaves:
        known = seen.get(one.path)
        if not known or known.digest != one.digest or known.rule != rule or known.places is None:
            found = places(one.path, one.bytes)
            known = _Seen(one.bytes, one.mark, one.digest, found, rule)
        now[one.path] = known
    _remember(cache, seen, now)
    return {path: known.places or [] for path, known in now.items()}


def _remember(cache: Path, seen: Mapping[str, _Seen], now: Mapping[str, _Seen]) -> None:
    if cache.parent.exists() and any(seen.get(path) != value for path, value in now.items()):
        write_json(cache, msgspec.to_builtins({**seen, **now}))


def _load(cache: Path) -> dict[str, _Seen]:
    if not cache.exists():
        return {}
    try:
        return msgspec.json.decode(cache.read_bytes(), type=dict[str, _Seen])
    except msgspec.DecodeError:
        return {}  # only a memory: what it held is read again


def _digest_of(path: str, seen: _Seen | None) -> _Seen:
    try:
        found = leaf.look(path)
        if found is None:
            raise BadInput(f"{path}: is gone")
        if seen and found.mark and (seen.bytes, seen.mark) == found:
            return seen
        return _Seen(found.bytes, found.mark, leaf.digest_of(path))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or _said(error)}") from error
    except BadInput:
        raise
    except Exception as error:
        if not leaf.is_uri(path):
            raise
        raise BadInput(f"{path}: cannot be read: {_said(error)}") from error
