"""One file that a story begins with: on a disk, or at any URI that fsspec opens."""

import hashlib
import re
import stat
from contextlib import AbstractContextManager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

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


def _names_file(link: str) -> bool:
    """Whether a link of a chain of URIs has more than a protocol."""
    return is_uri(link) and not link.endswith("://")


def look(path: str) -> Look | None:
    """What a file is like; None where there is none. Raises OSError where the storage fails,
    ImportError where what speaks to it is not installed, ValueError for an unknown protocol."""
    if not is_uri(path):
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(status.st_mode):
            return None
        return Look(status.st_size, str(status.st_mtime_ns))
    try:
        system, name = url_to_fs(path)
        told = system.info(name)
    except FileNotFoundError:
        return None
    if told.get("type") == "directory":
        return None
    if told.get("size") is None:
        raise OSError("the storage does not say how long it is")
    return Look(int(told["size"]), _mark_of_chain(path, told) if "::" in path else _mark(told))


def _mark_of_chain(chain: str, told: dict[str, Any]) -> str:
    """The mark of the file that all lies in: a member of an archive keeps its own time whatever
    becomes of the archive. Of a file in a folder its own."""
    rest = chain.partition("::")[2]
    beneath = look(rest)
    if beneath:
        return beneath.mark
    return "" if "::" in rest else _mark(told)


def _mark(told: dict[str, Any]) -> str:
    """What of a storage's words changes with the content; the empty text where it tells nothing."""
    known = {re.sub("[-_]", "", key.lower()): value for key, value in told.items()}
    for key in ("etag", "md5hash", "contentmd5", "generation", "checksum", "mtime", "lastmodified",
                "updated", "modified"):  # fmt: skip
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
    at = next(number for number, link in enumerate(links) if _names_file(link))
    return [
        "::".join([*links[:at], system.unstrip_protocol(found), *links[at + 1 :]])
        for found in system.glob(name)
    ]


def opened(path: str) -> AbstractContextManager[IO[bytes]]:
    """The file to be read, past the caches of a chain: their copies can be older than what `look`
    tells of."""
    if not is_uri(path):
        return Path(path).open("rb")
    *links, last = path.split("::")
    direct = "::".join([*filter(_names_file, links), last])
    return cast(AbstractContextManager[IO[bytes]], fsspec.open(direct, "rb"))


def digest_of(path: str) -> str:
    """SHA-256 of a file's bytes, hexadecimal: what `sha256sum` says."""
    with opened(path) as file:
        return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
