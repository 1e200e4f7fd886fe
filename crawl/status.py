"""How far a crawl is: what one process counts, and the sum over all that work on a run.

Each process writes what it counts into a file beside the ledger every second, whole, and once more
when it ends; whoever wants to know adds them up. What was counted stays counted when a process
ends or dies; what there is at the moment is of those that live.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

FOLDER = ".crawls"
STALE_S = 30.0
"""Seconds after which nobody writes a file of a process that lives."""
RATE_S = 60.0
"""Seconds that a rate is taken over."""
COUNTED = ("pages", "received")
SUMMED = ("left", "in_flight", "active", "waiting", "pages_per_s", "bytes_per_s")
"""Of processes that live."""


class Status(msgspec.Struct, kw_only=True):
    """What one process has done of a crawl since it began."""

    began: float = 0.0
    """By the process's own clock."""
    seconds: float = 0.0
    pages: int = 0
    """Links that have an outcome."""
    received: int = 0
    """Bytes of bodies, as they came."""
    outcomes: dict[str, int] = {}
    pages_per_s: float = 0.0
    """Over the last minute."""
    bytes_per_s: float = 0.0
    """The same."""
    left: int = 0
    in_flight: int = 0
    active: int = 0
    """Hosts of which one is asked now, or could be."""
    waiting: int = 0
    """Hosts that are left alone until their delay has passed."""
    bound_s: float = 0.0
    """What politeness alone takes: of the longest host, by what is known of its delay."""
    longest: str = ""
    left_s: float = 0.0
    """The same, of what is left."""
    state: str = "run"
    complaint: str = ""
    """Why what the operator says cannot be read."""
    ended: bool = False

    def count(self, outcome: str) -> None:
        """A link has an outcome."""
        self.pages += 1
        self.outcomes[str(outcome)] = self.outcomes.get(str(outcome), 0) + 1

    def expect(self, host: str, needs_s: float) -> None:
        """A host cannot be asked for all that is wanted of it in less."""
        if needs_s > self.bound_s:
            self.bound_s, self.longest = needs_s, host

    def eta_s(self) -> float | None:
        """Seconds that what is left takes: as politeness has it, or at the present rate, whichever
        is more; None where nothing tells, and in a pause."""
        if self.state == "pause":
            return None
        if self.left and not self.pages_per_s:  # as at the end, when the last host is a slow one
            return self.left_s or None
        return max(self.left_s, self.left / self.pages_per_s if self.left else 0.0)


class Rates:
    """What came within the last minute, by the second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def tell(self, status: Status) -> None:
        """Takes what a process counts now, and tells it its rates."""
        now = status.seconds
        self._seen.append((now, status.pages, status.received))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_S:
            self._seen.popleft()
        since, pages, received = self._seen[0]
        if now > since:
            status.pages_per_s = (status.pages - pages) / (now - since)
            status.bytes_per_s = (status.received - received) / (now - since)


def write(folder: Path, name: str, status: Status) -> None:
    """Puts the file of one process in its place, whole."""
    folder = folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f".{name}.tmp"
    hidden.write_bytes(msgspec.json.encode(status))
    hidden.rename(folder / f"{name}.json")


def clear(folder: Path) -> None:
    """Takes away what earlier crawls told; none may be under way."""
    for path in (folder / FOLDER).glob("*"):
        path.unlink(missing_ok=True)


def total(folder: Path, now: float) -> Status | None:
    """All processes together, since the crawl began; None where none lives. `now`: seconds since
    1970."""
    found = told(folder, now)
    return None if found.ended else found


def told(folder: Path, now: float) -> Status:
    """The same, of those too that have ended."""
    every = list(_read(folder, now))
    return _added(every, [one for one in every if not one.ended])


def _added(every: list[Status], living: list[Status]) -> Status:
    longest = max(every, key=lambda one: one.bound_s, default=Status())
    outcomes: Counter[str] = Counter()
    for one in every:
        outcomes.update(one.outcomes)
    most_first = dict(outcomes.most_common())
    counted = {name: sum(getattr(one, name) for one in every) for name in COUNTED}
    summed = {name: sum(getattr(one, name) for one in living) for name in SUMMED}
    return Status(
        **counted,
        **summed,
        outcomes=most_first,
        seconds=max((one.seconds for one in every), default=0.0),
        bound_s=longest.bound_s,
        longest=longest.longest,
        left_s=max((one.left_s for one in living), default=0.0),
        state=max((one.state for one in living), key=_weight, default="run"),
        complaint=next((one.complaint for one in living if one.complaint), ""),
        ended=not living,
    )


def _weight(state: str) -> int:
    """A process that has not looked yet does not speak for those that have."""
    return ("run", "pause", "stop").index(state)


def _read(folder: Path, now: float) -> Iterator[Status]:
    for path in sorted((folder / FOLDER).glob("[!.]*.json")):
        # a rebuild begins and takes it away; a power cut has left nothing of it
        with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
            status = msgspec.json.decode(path.read_bytes(), type=Status)
            status.ended = status.ended or path.stat().st_mtime < now - STALE_S
            yield status
