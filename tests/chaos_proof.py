"""What must be true of a crawl whose processes were killed, judged by what lies on disk and by the
log of the server that it asked: nothing durable asked again, lost or doubled; every record
readable; no host ever asked too soon.

Rule: nobody is accused of what he could not know. What a host asked of us counts from when it was
kept, and that it is kept is proven by what was asked next: a process that asked a host once more
had read its last answer.
"""

import gzip
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from fastwarc.warc import ArchiveIterator

from crawl import notes, observations, rounds, segments
from crawl.notes import Note
from tests.chaos_lives import Death
from tests.web_log import LAG_S, OF_ROBOTS, ROBOTS, Hit, unruly
from tests.web_pages import RETRY_AFTER_S
from tests.web_world import World

Job = tuple[int, str]
"""A page of a host, by whatever addresses it goes, or what those of another lead to."""
Row = dict[str, Any]
Key = tuple[bytes, str]
"""The link of a row, and where it was asked first."""

# What a world of these holds ends soon. All depends on the address alone, but for who is flaky, or
# busy for a moment.
KINDS_OF_HOSTS = {"open": 4.0, "partly": 2.0, "missing": 2.0, "delay": 2.0, "bom": 1.0,
                  "flaky": 0.5, "offsite": 1.0}  # fmt: skip
KINDS_OF_PAGES = {"plain": 8.0, "gzip": 3.0, "br": 1.0, "chunked": 2.0, "http10": 1.0,
                  "moved": 2.0, "moved_www": 2.0, "chain": 2.0, "offsite": 3.0, "not_found": 2.0,
                  "gone": 1.0, "noai_meta": 1.0, "broken": 0.3, "unavailable": 0.2, "flaky": 0.5,
                  "busy": 0.7}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Some hosts of a world, whose links lead to none of the others."""

    world: World
    first: int
    stop: int

    def links(self) -> list[str]:
        """Its links."""
        return [link for link in self._all() if not self._leads_out(link)]

    def _all(self) -> Iterator[str]:
        world = self.world
        for number in range(self.first, self.stop):
            yield from (world.url(number, page) for page in range(world.count(number)))

    def _leads_out(self, link: str) -> bool:
        number, path = self.world.place(link)
        leaves = self.world.page_of(number, path) == "offsite"
        return self._is_far(number) or (leaves and self._is_far(number + 1))

    def _is_far(self, number: int) -> bool:
        """Whether a host is none of these, or its robots.txt stands at one that is not."""
        is_last = number + 1 == self.stop
        return number >= self.stop or (is_last and self.world.robots_of(number) == "offsite")

    def holds(self, hit: Hit) -> bool:
        """Whether a request is to one of its hosts."""
        number = self.world.number(hit.host)
        return number is not None and self.first <= number < self.stop

    def job(self, host: str, path: str) -> Job:
        """What a request is about."""
        number = self.world.number(host)
        assert number is not None
        return number, path.split("/")[2]

    def times(self) -> Counter[Job]:
        """How many links each job is for: more than one where they lead to one address."""
        found: Counter[Job] = Counter()
        for link in self.links():
            number, path = self.world.place(link)
            found[self.job(self.world.host(number), path)] += 1
            if self.world.page_of(number, path) == "offsite":
                found[number + 1, f"of-{self.world.host(number)}"] += 1
        return found


@dataclass(frozen=True)
class Kept:
    """What stood on disk at a moment, as a reader finds it that trusts nothing but whole lines."""

    at: float
    rows: dict[Key, Row]
    notes: dict[str, Note]
    wall_s: float
    """What the clock of dates showed at 0 of the monotonic one."""

    @classmethod
    def at_rest(cls, ledger: Path, journal: Path | None = None) -> "Kept":
        """Now. Open segments first: one that is ended meanwhile is seen twice, not never."""
        rows: dict[Key, Row] = {}
        for folder in {ledger, segments.home(ledger, journal)}:
            for path in folder.glob(f"*{segments.OPEN_JOURNAL}"):
                for row in _journalled(path):
                    rows.setdefault(key_of(row), row)
        for row in observations.read(ledger).to_pylist():
            rows[key_of(row)] = row
        return cls(time.monotonic(), rows, notes.kept(ledger), time.time() - time.monotonic())

    def until(self, host: str) -> float:
        """The moment before which a host is not to be asked, as far as it is kept."""
        note = self.notes.get(host)
        return note.until.timestamp() - self.wall_s if note and note.until else float("-inf")


def _journalled(path: Path) -> Iterator[Row]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # whole by now
        return
    for text in data.split(b"\n")[:-1]:
        if row := segments.DECODER.decode(text).row:
            yield msgspec.structs.asdict(row)


def key_of(row: Row) -> Key:
    """What there is at most one row of."""
    return row["link_id"], rounds.start(row)


# The ledger


def rows_lost_or_doubled(kept: Iterable[Kept], ledger: Path) -> list[str]:
    """Rows that were durable at some time and are not what the ledger holds once."""
    final = [(key_of(row), row) for row in observations.read(ledger).to_pylist()]
    found = [f"{key} stands there {n} times" for key, n in Counter(k for k, _ in final).items()
             if n > 1]  # fmt: skip
    whole = dict(final)
    for one in kept:
        for key, row in one.rows.items():
            now = whole.get(key)
            if now is None:
                found.append(f"{key} was durable at {one.at:.3f} and is lost")
            elif (now["fetched_at"], now["warc_offset"]) != (row["fetched_at"], row["warc_offset"]):
                found.append(f"{key} was durable at {one.at:.3f} and is another now")
    return found


def left_behind(ledger: Path, journal: Path | None = None) -> list[str]:
    """Files that are part of nothing once nobody crawls any more. The claims of the dead are swept
    by who comes next."""
    folders = [ledger, *([journal] if journal else [])]
    names = {path.name.removesuffix(".parquet") for path in ledger.glob("*.parquet")}
    whole = {name + kind for name in names for kind in (".warc.gz", ".cdxj", ".parquet")}
    there = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    states = {path for path in there if path.suffix in (".hosts", ".claim")}
    states |= {ledger / ".claims"}
    crawls = set((ledger / ".crawls").glob("*"))
    extra = {path.name for path in there - states - crawls} ^ whole
    return [f"{name} is one file too many or too few" for name in sorted(extra)]


def unreadable(ledger: Path) -> list[str]:
    """Records that FastWARC does not read with sound digests, or that the CDXJ beside does not
    name, and rows whose payload is not where they say."""
    found: list[str] = []
    bodies: dict[tuple[str, int], str] = {}
    for path in sorted(ledger.glob("*.warc.gz")):
        found += _judged(path, bodies)
    for row in observations.read(ledger).to_pylist():
        if row["warc_file"] is None:
            continue
        if bodies.get((row["warc_file"], row["warc_offset"])) != row["digest"]:
            found.append(f"{row['url']}: no payload {row['digest']} at {row['warc_offset']}")
    return found


def _judged(path: Path, bodies: dict[tuple[str, int], str]) -> Iterator[str]:
    named, places = [], []
    with path.open("rb") as file:
        # Digests first, as they are of the whole block: an iterator that parses has read some.
        for record in ArchiveIterator(file, parse_http=False):
            kind, at = record.headers["WARC-Type"], record.stream_pos
            places.append(at)
            if "WARC-Block-Digest" in record.headers and not record.verify_block_digest():
                yield f"{path.name}: {kind} at {at}: its block is not that of its digest"
            if kind in ("response", "revisit"):
                named.append((record.headers["WARC-Target-URI"], at))
            if kind == "response":
                bodies[path.name, at] = record.headers["WARC-Payload-Digest"]
    size = path.stat().st_size
    with path.open("rb") as file:
        kinds = []
        for record in ArchiveIterator(file, parse_http=True, verify_digests=True):
            kinds.append(record.headers["WARC-Type"])
    if len(kinds) != len(places):
        yield f"{path.name}: {len(places) - len(kinds)} records have another digest"
    if kinds[:1] != ["warcinfo"]:
        yield f"{path.name}: begins with no warcinfo"
    ends = dict(itertools.pairwise([*places, size]))
    said = [json.loads(line.split(" ", 2)[2]) for line in _lines(path.with_name(path.name[:-8]))]
    indexed = [(one["url"], int(one["offset"]), int(one["length"])) for one in said]
    if sorted(indexed) != sorted((target, at, ends[at] - at) for target, at in named):
        yield f"{path.name}: its index does not name its responses"
    if any(one["filename"] != path.name for one in said):
        yield f"{path.name}: its index is of another file"
    try:
        gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        yield f"{path.name}: {error}"


def _lines(stem: Path) -> list[str]:
    return Path(f"{stem}.cdxj").read_text().splitlines()


# The server's log


def asked_again(part: Part, hits: Iterable[Hit], kept: Iterable[Kept]) -> list[str]:
    """Pages that were asked for after all rows about them were durable."""
    times, settled = part.times(), dict[Job, float]()
    for one in sorted(kept, key=lambda one: one.at):
        starts = [start.partition("://")[2].partition("/") for _, start in one.rows]
        counts = Counter(part.job(host, f"/{path}") for host, _, path in starts)
        for job, count in counts.items():
            if count >= times[job]:
                settled.setdefault(job, one.at)
    late = [hit for hit in hits if not hit.path.startswith(OF_ROBOTS)]
    late = [hit for hit in late if hit.at > settled.get(part.job(hit.host, hit.path), float("inf"))]
    return [f"{hit.at:.3f} {hit.host}{hit.path}: its row was durable" for hit in late]


@dataclass
class Told:
    """One life of the crawler: when, what it left, and which of the requests are its."""

    began: float
    killed: float
    over: float
    kept: Kept
    is_alone: bool = True
    """No other life went on beside it; else who asks a host for its robots.txt may be new."""
    hits: list[Hit] = field(default_factory=list)

    @classmethod
    def of(cls, death: Death, kept: Kept) -> "Told":
        """What a mother says of it."""
        killed = death.over if death.killed is None else death.killed
        return cls(death.began, killed, death.over, kept)

    def end_of(self, hit: Hit) -> float:
        """When a request ended, at the latest: what is under way ends with who asked."""
        if hit.ended is None or hit.cut:
            if hit.ended is None or hit.ended > self.killed - LAG_S:
                return min(max(hit.at, self.killed), self.over)
            return max(hit.at, hit.ended - LAG_S)
        return min(hit.ended, self.over)


def impolite(
    part: Part, lives: Sequence[Told], *, min_delay_s: float, latency_factor: float
) -> list[str]:
    """Requests that came too soon after the one before to the same host, or after a restart; and
    what hosts asked of us without its being kept."""
    found: list[str] = []
    hosts: dict[str, list[tuple[Told, Hit]]] = defaultdict(list)
    for life in lives:
        for hit in life.hits:
            hosts[hit.host].append((life, hit))
    busy = _busy(part, [hit for life in lives for hit in life.hits])
    for host, asked in hosts.items():
        asked.sort(key=lambda pair: pair[1].at)
        for (one, first), (other, then) in itertools.pairwise(asked):
            end, note = one.end_of(first), one.kept.notes.get(host)
            same = one is other and (one.is_alone or then.path != ROBOTS)
            owed, told = min_delay_s, []
            if not (first.path.startswith(OF_ROBOTS) and then.path.startswith(OF_ROBOTS)):
                owed = max(owed, part.world.delay_of(host))
                if same and (note.delay_s if note else 0.0) < part.world.delay_of(host):
                    told.append("its Crawl-delay was not kept")
            if same and not first.cut:
                owed = max(owed, latency_factor * (end - first.at))
                if max(min_delay_s, full_delay_s(note)) < owed:
                    told.append(f"left alone for {owed:.6f}, which was not kept")
            until = one.kept.until(host)
            if id(first) in busy and (same or first.at < until < then.at + RETRY_AFTER_S):
                owed = max(owed, RETRY_AFTER_S)
                if until < end + RETRY_AFTER_S:
                    told.append("its Retry-After was not kept")
            if then.at - end < owed:
                told.append(f"the next came {then.at - end:.6f} s later, not {owed:.6f}")
            if one.over <= other.began:
                told += _too_early(one.kept, other, then, min_delay_s)
            found += [f"{first.at:.6f} {host}{first.path}: {text}" for text in told]
    return found


def full_delay_s(note: Note | None) -> float:
    """The delay that is kept for a host."""
    return max(note.delay_s, note.rest_s) if note else 0.0


def _busy(part: Part, hits: Iterable[Hit]) -> set[int]:
    """The requests that were answered with a Retry-After: of some pages the first, of some all."""
    seen: set[tuple[str, str]] = set()
    found = set()
    for hit in sorted(hits, key=lambda hit: hit.at):
        number = part.world.number(hit.host)
        assert number is not None
        if hit.path.startswith(("/p/", "/private/")) and not hit.cut:
            kind = part.world.page_of(number, hit.path)
            is_first = (hit.host, hit.path) not in seen
            if kind == "unavailable" or (kind == "busy" and is_first):
                found.add(id(hit))
        seen.add((hit.host, hit.path))
    return found


def _too_early(kept: Kept, life: Told, hit: Hit, least: float) -> list[str]:
    """That a life asked a host that one which was over before it had asked, before one full delay
    had passed."""
    note = kept.notes.get(hit.host)
    wait = max(least, full_delay_s(note), kept.until(hit.host) - life.began)
    after = hit.at - life.began
    if after >= wait:
        return []
    return [f"the next came {after:.6f} s after a restart, not {wait:.6f}"]


def disobedient(part: Part, lives: Sequence[Told]) -> list[str]:
    """Requests of a life that had not been told by the host's robots.txt that it may."""
    asked = [life.hits for life in lives if life.is_alone]
    asked.append([hit for life in lives if not life.is_alone for hit in life.hits])
    return [str(one) for hits in asked for one in unruly(hits, part.world.forbids)]


def against(
    part: Part, ledger: Path, journal: Path | None, lives: Sequence[Told], **pace: float
) -> list[str]:
    """All that there is to be said against a crawl that is over, whose lives were these."""
    kept = [life.kept for life in lives]
    hits = [hit for life in lives for hit in life.hits]
    return [
        *rows_lost_or_doubled(kept, ledger),
        *unreadable(ledger),
        *left_behind(ledger, journal),
        *asked_again(part, hits, kept),
        *impolite(part, lives, **pace),
        *disobedient(part, lives),
    ]
