"""What the operator says while a crawl runs: pause, stop, hosts that are not to be asked, a bound.

It stands in a file in the run's root, `crawl.toml`, which is looked at again every second. A file
that cannot be read changes nothing: the last one that could goes on to hold. Who has not read any
yet cannot know whom it denies, and asks nobody.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from crawl import canonical, url
from crawl.schema import BadInput

FILE = "crawl.toml"
HEAD = "# What the operator says to the crawl; `webtext steer` writes it, and you may."
HOST = re.compile(r"(?:\*\.)?[a-z0-9_.-]+")
ADDRESS = re.compile(r"(https?)://([^/?#]*)([^?#]*)(.*)", re.DOTALL)
DEFAULT_PORT = {"http": re.compile(r":(0*80)?\Z"), "https": re.compile(r":(0*443)?\Z")}
LAST_DOT = re.compile(r"\.(?=:[0-9*]*\Z|\Z)")

State = Literal["run", "pause", "stop"]


class Steering(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """The file's content."""

    state: State = "run"
    """`pause`: nobody is asked until it says `run`. `stop`: what is in flight is ended, then the
    crawl; the next `rebuild` goes on."""

    deny: tuple[str, ...] = ()
    """Not asked: a host (`example.com`), all below and at it (`*.example.com`), or addresses that
    begin so (`https://example.com/private/`), with `*` for anything. A default port and the
    spelling of a host and of escapes do not matter. They end as `denied`."""

    allow: tuple[str, ...] = ()
    """Where it names any, only these are asked; `deny` has the last word."""

    max_bytes_per_s: Annotated[int, Meta(ge=0)] | None = None
    """Instead of `crawl.max_bytes_per_s`; 0: no bound."""

    def __post_init__(self) -> None:
        self._denied  # noqa: B018  -- what is no pattern is told now
        self._allowed  # noqa: B018

    def denies(self, target: str) -> bool:
        """Whether a URL is not to be asked."""
        if self.allow and not self._allowed.fits(url.host(target), target):
            return True
        return self.shuts(target)

    def shuts(self, target: str) -> bool:
        """Whether `deny` names a URL, such as that of a robots.txt, which `allow` need not."""
        return bool(self.deny) and self._denied.fits(url.host(target), target)

    @cached_property
    def _denied(self) -> "Patterns":
        return Patterns.of(self.deny)

    @cached_property
    def _allowed(self) -> "Patterns":
        return Patterns.of(self.allow)


@dataclass(frozen=True)
class Patterns:
    """A list of patterns, made ready: to look a host up costs the same in a long one."""

    hosts: frozenset[str]
    domains: frozenset[str]
    """With all below them."""
    addresses: re.Pattern[str] | None

    @classmethod
    def of(cls, patterns: Sequence[str]) -> Self:
        """Raises ValueError for what is no pattern."""
        for pattern in patterns:
            _require(pattern)
        begins = [re.escape(_spelled(one)).replace(r"\*", ".*") for one in patterns if "://" in one]
        return cls(
            frozenset(one for one in patterns if "://" not in one and not one.startswith("*.")),
            frozenset(one[2:] for one in patterns if one.startswith("*.")),
            re.compile("|".join(begins), re.DOTALL) if begins else None,
        )

    def fits(self, host: str, target: str) -> bool:
        """Whether one of them means this URL, which stands at this host."""
        if host in self.hosts or (self.domains and any(up in self.domains for up in _above(host))):
            return True
        return self.addresses is not None and self.addresses.match(_spelled(target)) is not None


@dataclass
class Watch:
    """The file as it was last seen. `look` at it now and then."""

    path: Path
    now: Steering = field(default_factory=Steering)
    complaint: str = ""
    """Why the file cannot be read, since it cannot."""
    seen: tuple[int, ...] | None = None
    understood: bool = False
    """Whether it could ever be read, be it that there was none."""

    def look(self) -> Steering:
        """What the file says."""
        try:
            mark = _mark(self.path)
            if mark != self.seen:
                self.now, self.complaint, self.seen = read(self.path), "", mark
                self.understood = True
        except BadInput as error:
            holds = "what it said before holds"
            if not self.understood:
                self.now, holds = Steering(state="pause"), "nobody is asked until it can be read"
            self.complaint, self.seen = f"{error}; {holds}", mark
        return self.now


def read(path: Path) -> Steering:
    """The file's content; nothing in particular where there is none. Raises BadInput."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Steering)
    except FileNotFoundError:
        return Steering()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: {' '.join(str(error).split())}") from error


def write(path: Path, steering: Steering) -> None:
    """Puts the file in its place, whole."""
    lines = [HEAD, f'state = "{steering.state}"']
    for key in ("deny", "allow"):
        if patterns := getattr(steering, key):
            lines.append(f"{key} = {msgspec.json.encode(patterns).decode()}")
    if steering.max_bytes_per_s is not None:
        lines.append(f"max_bytes_per_s = {steering.max_bytes_per_s}")
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.tmp")
    hidden.write_text("\n".join(lines) + "\n")
    hidden.rename(path)


def _mark(path: Path) -> tuple[int, ...]:
    """What tells a change of a file; the same while there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _above(host: str) -> list[str]:
    """A host, and the domains above it."""
    labels = host.split(".")
    return [".".join(labels[place:]) for place in range(len(labels))]


def _spelled(address: str) -> str:
    """A pattern and a URL in one spelling: what servers do not tell apart, patterns do not."""
    found = ADDRESS.match(address)
    assert found  # a fetch URL, or what was required of a pattern
    scheme, where, path, rest = found.groups()
    where = DEFAULT_PORT[scheme].sub("", where.rpartition("@")[2].lower())
    where = LAST_DOT.sub("", where)
    return f"{scheme}://{where}{canonical.spelled((path or '/') + rest)}"


def _require(pattern: str) -> None:
    """ValueError for what is no pattern."""
    if "://" in pattern:
        if not pattern.startswith(("http://", "https://")):
            raise ValueError(f"{pattern!r} is not a host, `*.` and a host, or an http(s) address")
        if not (named := pattern.split("/")[2]) or named != named.lower():
            raise ValueError(f"{pattern!r} names no host in lower case")
    elif not HOST.fullmatch(pattern):
        raise ValueError(f"{pattern!r} is not a host in lower case ASCII, as a-b.org or *.a-b.org")
