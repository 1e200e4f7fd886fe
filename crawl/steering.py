"""What the operator says while a crawl runs: pause, stop, hosts that are not to be asked, a bound.

It stands in a file beside the ledger, `crawl.toml`, which is looked at again every few seconds. A
file that cannot be read changes nothing: the last one that could goes on to hold, and is told.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from crawl import url
from crawl.schema import BadInput

FILE = "crawl.toml"
LOOK_S = 2.0
"""Seconds between two looks."""
HOST = re.compile(r"(?:\*\.)?[a-z0-9_.-]+")

State = Literal["run", "pause", "stop"]


class Steering(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file's content."""

    state: State = "run"
    """`pause`: nobody is asked until it says `run`. `stop`: what is in flight is ended, then the
    crawl; the next `rebuild` goes on."""

    deny: tuple[str, ...] = ()
    """Not asked: a host (`example.com`), all below and at it (`*.example.com`), or addresses that
    begin so (`https://example.com/private/`), with `*` for anything. They end as `denied`."""

    allow: tuple[str, ...] = ()
    """Where it names any, only these are asked; `deny` has the last word."""

    max_bytes_per_s: int | None = None
    """Instead of `crawl.max_bytes_per_s`; 0: no bound."""

    def __post_init__(self) -> None:
        for key in ("deny", "allow"):
            for pattern in getattr(self, key):
                _matcher(pattern)

    def denies(self, target: str) -> bool:
        """Whether a URL is not to be asked."""
        if self.allow and not _any(self.allow, target):
            return True
        return self.shuts(target)

    def shuts(self, target: str) -> bool:
        """Whether `deny` names a URL, such as that of a robots.txt, which `allow` need not."""
        return _any(self.deny, target)


@dataclass
class Watch:
    """The file as it was last seen. `look` at it now and then."""

    path: Path
    now: Steering = field(default_factory=Steering)
    seen: tuple[int, int] | None = None

    def look(self) -> Steering:
        """What the file says."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self.now, self.seen = Steering(), None
            return self.now
        mark = stat.st_mtime_ns, stat.st_size
        if mark != self.seen:
            self.seen = mark
            try:
                self.now = read(self.path)
            except BadInput as error:
                logging.getLogger(__name__).warning("%s; what it said before holds", error)
        return self.now


def read(path: Path) -> Steering:
    """The file's content; nothing in particular where there is none. Raises BadInput."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Steering)
    except FileNotFoundError:
        return Steering()
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise BadInput(f"{path}: {error}") from error


def write(path: Path, steering: Steering) -> None:
    """Puts the file in its place, whole."""
    lines = [f'state = "{steering.state}"']
    for key in ("deny", "allow"):
        if patterns := getattr(steering, key):
            lines.append(f"{key} = {msgspec.json.encode(patterns).decode()}")
    if steering.max_bytes_per_s is not None:
        lines.append(f"max_bytes_per_s = {steering.max_bytes_per_s}")
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.tmp")
    hidden.write_text("\n".join(lines) + "\n")
    hidden.rename(path)


def _any(patterns: Sequence[str], target: str) -> bool:
    host = url.host(target)
    return any(_fits(pattern, host, target) for pattern in patterns)


def _fits(pattern: str, host: str, target: str) -> bool:
    return _matcher(pattern).match(target if "://" in pattern else host) is not None


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> re.Pattern[str]:
    """Raises ValueError for what is no pattern."""
    if "://" in pattern:
        if not pattern.startswith(("http://", "https://")):
            raise ValueError(f"{pattern!r} is not a host, `*.` and a host, or an http(s) address")
        return re.compile(re.escape(pattern).replace(r"\*", ".*"), re.DOTALL)
    if not HOST.fullmatch(pattern):
        raise ValueError(f"{pattern!r} is not a host in lower case ASCII, as a-b.org or *.a-b.org")
    name = re.escape(pattern.removeprefix("*."))
    below = r"(?:.*\.)?" if pattern.startswith("*.") else ""
    return re.compile(f"{below}{name}$")
