"""How far a crawl is: what one process counts, and the sum over all that work on a run.

Each process writes what it counts into a file beside the ledger every second or two, whole; whoever
wants to know adds up the files of those that live. The files of the dead are taken away.
"""

import contextlib
import os
from collections import Counter
from pathlib import Path

import msgspec

FOLDER = ".crawls"
STALE_S = 30.0
"""Seconds after which nobody writes a file of a process that lives."""


class Status(msgspec.Struct, kw_only=True):
    """What one process has done of a crawl since it began."""

    began: float = 0.0
    """By the process's own clock."""
    seconds: float = 0.0
    pages: int = 0
    """Links that have an outcome."""
    received: int = 0
    """Bytes of bodies, as they came."""
    outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    left: int = 0
    in_flight: int = 0
    active: int = 0
    """Hosts of which one is asked now, or could be."""
    waiting: int = 0
    """Hosts that are left alone until their delay has passed."""
    bound_s: float = 0.0
    """What politeness alone takes: of the longest host, as it was known when the crawl began."""
    longest: str = ""
    left_s: float = 0.0
    """The same, of what is left."""
    state: str = "run"

    def count(self, outcome: str) -> None:
        """A link has an outcome."""
        self.pages += 1
        self.outcomes[str(outcome)] += 1

    def expect(self, host: str, needs_s: float) -> None:
        """A host cannot be asked for all that is wanted of it in less."""
        if needs_s > self.bound_s:
            self.bound_s, self.longest = needs_s, host


def write(folder: Path, name: str, status: Status) -> None:
    """Puts the file of one process in its place, whole."""
    folder = folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f".{name}.tmp"
    hidden.write_bytes(msgspec.json.encode(status))
    hidden.rename(folder / f"{name}.json")


def remove(folder: Path, name: str) -> None:
    """The process has ended."""
    (folder / FOLDER / f"{name}.json").unlink(missing_ok=True)


def total(folder: Path, now: float) -> Status | None:
    """All processes at work together; None where there is none. `now`: seconds since 1970."""
    found = [status for path in _files(folder) if (status := _read(path, now)) is not None]
    if not found:
        return None
    longest = max(found, key=lambda one: one.bound_s)
    outcomes: Counter[str] = Counter()
    for one in found:
        outcomes.update(one.outcomes)
    added = {
        name: sum(getattr(one, name) for one in found)
        for name in ("pages", "received", "left", "in_flight", "active", "waiting")
    }
    return Status(
        **added,
        outcomes=outcomes,
        seconds=max(one.seconds for one in found),
        bound_s=longest.bound_s,
        longest=longest.longest,
        left_s=max(one.left_s for one in found),
        state=longest.state,
    )


def _files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("[!.]*.json"))


def _read(path: Path, now: float) -> Status | None:
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        if os.stat(path).st_mtime < now - STALE_S:  # noqa: PTH116
            path.unlink()
            return None
        return msgspec.json.decode(path.read_bytes(), type=Status)
    return None
