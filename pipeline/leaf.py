"""One file that a story begins with: on a disk, or at any URI that fsspec opens."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
from fsspec.core import url_to_fs


class Look(NamedTuple):
    """What a file is like, without reading it."""

    bytes: int
    mark: str
    """Changes with the content: the time of change, or what the storage says, as far as it does."""


def is_uri(path: str) -> bool:
    """Whether fsspec is asked for this name, and not the disk."""
    return "://" in path


def look(path: str) -> Look | None:
    """What a file is like; None where there is none. Raises OSError where the storage fails,
    ImportError where what speaks to it is not installed, ValueError for an unknown protocol."""
    if not is_uri(path):
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            return None
        return Look(status.st_size, str(status.st_mtime_ns))
    try:
        system, name = url_to_fs(path)
        told = system.info(name)
    except FileNotFoundError:
        return None
    if told.get("type") == "directory" or told.get("size") is None:
        return None
    # A member of an archive keeps its time and size whatever becomes of the archive.
    mark = _mark_beneath(path) if "::" in path else _mark(told)
    return Look(int(told["size"]), mark)


def _mark_beneath(chain: str) -> str:
    found = look(chain.partition("::")[2])
    return found.mark if found else ""


def _mark(told: dict[str, Any]) -> str:
    """What of a storage's words changes with the content; the empty text where it tells nothing."""
    known = {key.lower(): value for key, value in told.items()}
    for key in ("etag", "md5hash", "content_md5", "generation", "checksum", "mtime", "lastmodified",
                "last_modified", "updated", "modified"):  # fmt: skip
        if known.get(key):
            return f"{key} {known[key]}"
    return ""


def matching(pattern: str) -> list[str]:
    """The files that a URI with a glob names, as URIs; of a chain, with all that they lie in.
    Raises as `look` does."""
    try:
        system, name = url_to_fs(pattern)
    except FileNotFoundError:  # of a chain, what all lies in
        return []
    links = pattern.split("::")
    at = next(number for number, link in enumerate(links) if is_uri(link))
    return [
        "::".join([*links[:at], system.unstrip_protocol(found), *links[at + 1 :]])
        for found in system.glob(name)
    ]


def digest_of(path: str) -> str:
    """SHA-256 of a file's bytes, hexadecimal: what `sha256sum` says."""
    with fsspec.open(path, "rb") if is_uri(path) else Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
