"""What one task asks of the web: links, targets handed over by others, robots.txt files, as jobs.

Rule: every job is settled once, as a row of the ledger, as something that another owner must ask,
or given back unasked; a task is done when none is left. Links are jobs only when their turn comes:
a queue of them is a range of rows.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

from crawl import content, robots, url
from crawl.notes import Notes
from crawl.observations import Writer
from crawl.warc import Answer

UNASKED = 0
"""The status of a file that was not asked for, which says nothing of who would have answered."""


@dataclass(frozen=True, slots=True)
class Page:
    """A link on its way: where it stands after `hops` redirects. `start` is what was asked of this
    task: the link itself, or where it led when it left the domain of another."""

    work: "Work"
    link_id: bytes
    url: str
    start: str
    target: str
    hops: int = 0
    attempts: int = 0
    visit: bool = False
    """Handed over by another owner, be it the link itself, where a chain has come back to it."""


@dataclass(frozen=True, slots=True)
class OriginFile:
    """A file on its way that speaks for an origin."""

    work: "Work"
    kind: str
    """`robots`; `tdm`; `handed`: a robots.txt that was handed over by the origin's owner."""
    origin: str
    target: str
    step: robots.Step | None = None
    """How far a robots.txt is on its way."""
    hops: int = 0
    attempts: int = 0


Job = Page | OriginFile


@dataclass(frozen=True)
class Handed:
    """A link that left its own domain, to be asked at its target."""

    link_id: bytes
    url: str
    target: str
    hops: int
    times: int = 1
    """How often it was led there: as often it is asked."""


@dataclass(frozen=True)
class Fetched:
    """What a robots.txt elsewhere said, for the origin that sent there; no status: nothing;
    `UNASKED`: nobody was to ask."""

    origin: str
    status: int | None
    body: bytes

    @classmethod
    def of(cls, origin: str, led: robots.Rules, answer: Answer) -> "Fetched":
        """What `led` to these rules, in a form that leads to them anywhere: the decoded body of a
        success, the bare status of what allows all, nothing for what cannot be had."""
        if led.unreachable:
            return cls(origin, None, b"")
        if not 200 <= answer.status < 300:
            return cls(origin, answer.status, b"")
        coding = answer.header("Content-Encoding")
        plain = content.first(answer.body, coding, robots.MAX_BYTES + 1)
        return cls(origin, answer.status, plain)


@dataclass(eq=False)
class Work:
    """The jobs of one task, and what became of them so far."""

    writer: Writer
    """Of the ledger's range that the links lie in."""
    visitors: Writer
    """Of what was handed over, whose ids lie anywhere."""
    notes: Notes
    links: pa.Table
    """link_id, fetch_url, host: sorted by host."""
    handed: Sequence[Handed] = ()
    files: Sequence[robots.Step] = ()
    """Robots.txt files of other owners' origins, which redirects led here."""
    rules: Mapping[str, Fetched] = field(default_factory=dict)
    left: int = 0
    """Jobs that are not settled."""
    released: bool = False
    """Wanted back: nothing more of it is asked."""
    began_at: float = 0.0
    """When it was begun, in seconds of the crawler's clock."""
    strays: set[str] = field(default_factory=set)
    """Hosts that redirects have led to."""
    given_back: int = 0
    """Jobs that were let go unasked."""
    elsewhere: list[robots.Step] = field(default_factory=list)
    """Robots.txt files that redirects led to other owners."""
    waiting: set[bytes] = field(default_factory=set)
    """Links whose turn comes when these are known."""
    fetched: list[Fetched] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def queues(self) -> Iterator[tuple[str, Sequence[Job]]]:
        """The jobs of each host, once a host and kind: own links as they are to be, then what
        others handed over."""
        hosts = self.links["host"].combine_chunks()
        if len(hosts):
            runs = pc.run_end_encode(hosts)
            start = 0
            for host, stop in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
                yield host, Links(self, start, stop)
                start = stop
        visits: dict[str, list[Job]] = {}
        for host, job in self._visits():
            visits.setdefault(host, []).append(job)
        yield from visits.items()

    def writer_of(self, page: Page) -> Writer:
        """Where the outcome of a page is written."""
        return self.visitors if page.visit else self.writer

    def _visits(self) -> Iterator[tuple[str, Job]]:
        for one in self.handed:
            place, hops = one.target, one.hops
            yield url.host(place), Page(self, one.link_id, one.url, place, place, hops, visit=True)
        for step in self.files:
            yield url.host(step.target), OriginFile(self, "handed", step.origin, step.target, step)

    def jobs(self) -> int:
        """How much there is to do, in all."""
        return len(self.links) + len(self.handed) + len(self.files)

    def begin(self) -> None:
        """Nothing is settled yet."""
        self.left = self.jobs()
        self.settled(0)

    def put_off(self, page: Page) -> None:
        """A page waits for a robots.txt that somebody else asks for."""
        self.waiting.add(page.link_id)
        self.settled()

    def give_back(self) -> None:
        """A job is let go unasked."""
        self.given_back += 1
        self.settled()

    def settled(self, jobs: int = 1) -> None:
        """So many jobs are done with."""
        self.left -= jobs
        if self.left <= 0:
            self.done.set()


class Links(Sequence[Page]):
    """The jobs of consecutive rows of a task's links, made when they are asked for."""

    __slots__ = ("_start", "_stop", "_work")

    def __init__(self, work: Work, start: int, stop: int) -> None:
        self._work, self._start, self._stop = work, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, place: int) -> Page: ...
    @overload
    def __getitem__(self, place: slice) -> "Links": ...
    def __getitem__(self, place: int | slice) -> "Page | Links":
        if isinstance(place, slice):
            start, stop, _ = place.indices(len(self))
            return Links(self._work, self._start + start, self._start + max(start, stop))
        if not 0 <= place < len(self):
            raise IndexError(place)
        row = self._start + place
        links = self._work.links
        address = links["fetch_url"][row].as_py()
        target = url.requested(address)
        return Page(self._work, links["link_id"][row].as_py(), address, target, target)
