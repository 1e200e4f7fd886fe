"""What was asked of the loopback web, and when: the log, and what it proves of who asked.

Rule: nobody is accused of what he did not do. A request is stamped when all of it is here, later
than it was sent; the end of an answer before its last bytes are handed on, earlier than they are
read: so each pause in the log is no shorter than the one that was kept. Where the client left
before the end, the server learns of it afterwards, and `LAG_S` is allowed for that.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROBOTS = "/robots.txt"
OF_ROBOTS = "/robots"
"""What paths begin with that robots.txt files are, or send to: none speaks for these."""
LAG_S = 0.25
"""Within which a server hears that a client is gone, its machine busy with other things."""


@dataclass(slots=True)
class Hit:
    """One request. Times are seconds of the monotonic clock, the same in all processes."""

    host: str
    path: str
    at: float
    """When it had come in whole."""
    head: bytes = field(default=b"", repr=False)
    tls: bool = False
    ended: float | None = None
    """When the end of its answer was handed on; None while it has not been."""
    cut: bool = False
    """It had no end: one side left, at about that moment."""
    agent: str = ""
    """Who asked, in its own words. Empty where the log is one in memory, which has the head."""

    @property
    def headers(self) -> dict[str, str]:
        """Its fields, all in lower case. Empty where the log comes from a file."""
        lines = self.head.decode("latin-1").lower().split("\r\n")[1:]
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def origin(self) -> str:
        """What one robots.txt speaks for, on the default port."""
        return f"{'https' if self.tls else 'http'}://{self.host}"


@dataclass(frozen=True)
class Violation:
    """Something that was asked and should not have been, then or ever."""

    kind: str
    host: str
    path: str
    at: float
    said: str

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.host}{self.path}: {self.kind}: {self.said}"


class FileLog:
    """A log in a file: a line when a request has come, before it is answered, and one when its
    answer ended. A file outlives whoever is killed; the last line of one may be torn."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._count = 0
        self._numbers: dict[int, int] = {}

    def begun(self, hit: Hit) -> None:
        """A request has come in whole."""
        self._count += 1
        self._numbers[id(hit)] = self._count
        said = [hit.host, hit.path, hit.at, hit.tls, _agent(hit.head)]
        self._write([os.getpid(), self._count, *said])

    def over(self, hit: Hit) -> None:
        """Its answer has ended."""
        self._write([os.getpid(), self._numbers.pop(id(hit)), hit.ended, hit.cut])

    def _write(self, line: list[object]) -> None:
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


class ListLog(list[Hit]):
    """A log in memory."""

    def begun(self, hit: Hit) -> None:
        """A request has come in whole."""
        self.append(hit)

    def over(self, hit: Hit) -> None:
        """Its answer has ended: the hit says so itself."""


Log = FileLog | ListLog


def _agent(head: bytes) -> str:
    start = head.lower().find(b"\r\nuser-agent:")
    line = head[start + 13 :].partition(b"\r\n")[0] if start >= 0 else b""
    return line.strip().decode("latin-1")


def read(path: Path) -> list[Hit]:
    """The requests of a log in a file, in the order in which they came."""
    found: dict[tuple[int, int], Hit] = {}
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    for line in whole.splitlines():
        process, number, *told = json.loads(line)
        if len(told) == 2:
            found[process, number].ended, found[process, number].cut = told
        else:
            host, asked, at, tls, agent = told
            found[process, number] = Hit(host, asked, at, tls=tls, agent=agent)
    return list(found.values())


def violations(
    log: Iterable[Hit],
    delay_of: Callable[[str], float],
    *,
    of: Callable[[str], str] = str,
    most: Callable[[str, str], int] = lambda host, path: 1,
    forbids: Callable[[str, str], bool] = lambda host, path: False,
) -> list[Violation]:
    """All that the log holds against who asked; see the three below."""
    hits = list(log)
    return [*too_close(hits, delay_of, of=of), *repeated(hits, most), *unruly(hits, forbids)]


def too_close(
    log: Iterable[Hit], delay_of: Callable[[str], float], *, of: Callable[[str], str] = str
) -> list[Violation]:
    """Requests that came while another to the same host was being answered, or closer to its end
    than the `delay_of` that host, in seconds. `of` makes of a host whom the delay is owed to, where
    that is more than the host itself: its registrable domain."""
    ends: dict[str, float] = {}
    found = []
    for hit in sorted(log, key=lambda hit: hit.at):
        whose = of(hit.host)
        last = ends.get(whose, float("-inf"))
        pause = hit.at - last
        if pause < 0:
            text = "another was still being answered"
            found.append(Violation("overlapping", hit.host, hit.path, hit.at, text))
        elif pause < delay_of(whose):
            text = f"{pause:.6f} s after the last, not {delay_of(whose)}"
            found.append(Violation("too close", hit.host, hit.path, hit.at, text))
        ends[whose] = max(last, _end(hit))
    return found


def _end(hit: Hit) -> float:
    if hit.ended is None:
        return float("inf")
    return max(hit.at, hit.ended - LAG_S) if hit.cut else hit.ended


def repeated(
    log: Iterable[Hit], most: Callable[[str, str], int] = lambda host, path: 1
) -> list[Violation]:
    """Requests for a page beyond the `most` of a host and path that may be, attempts included. A
    robots.txt has rules of its own."""
    times: Counter[tuple[str, str]] = Counter()
    found = []
    for hit in log:
        times[hit.origin, hit.path] += 1
        count = times[hit.origin, hit.path]
        if not hit.path.startswith(OF_ROBOTS) and count > most(hit.host, hit.path):
            text = f"asked {count} times"
            found.append(Violation("repeated", hit.host, hit.path, hit.at, text))
    return found


def unruly(
    log: Iterable[Hit], forbids: Callable[[str, str], bool] = lambda host, path: False
) -> list[Violation]:
    """Requests to an origin before its robots.txt had been answered, and those it `forbids`."""
    asked: dict[str, float] = {}
    found = []
    for hit in sorted(log, key=lambda hit: hit.at):
        if hit.path == ROBOTS:
            ended = float("inf") if hit.ended is None else _end(hit)
            asked[hit.origin] = min(ended, asked.get(hit.origin, float("inf")))
        if hit.path.startswith(OF_ROBOTS):
            continue
        if asked.get(hit.origin, float("inf")) > hit.at:
            text = "robots.txt had not been answered"
            found.append(Violation("unruly", hit.host, hit.path, hit.at, text))
        if forbids(hit.host, hit.path):
            found.append(Violation("disallowed", hit.host, hit.path, hit.at, "robots.txt says so"))
    return found
