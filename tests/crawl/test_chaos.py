"""The crawl is killed at hundreds of instants, and goes on: nothing that was durable is asked for
again, lost or doubled, and no host is ever asked too soon."""

import itertools
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from crawl import pages
from crawl.config import CrawlConfig
from tests import chaos_proof, web
from tests.chaos_lives import STEPS, Death, Ends, Life, mother
from tests.chaos_proof import Kept, Part, Told

Begin = Callable[[Life], "Future[Death]"]
MIN_DELAY_S, LATENCY_FACTOR = 0.03, 2.0
MOST_LIVES = 60
"""Of one crawl; the last may live as long as it needs."""
MEMORY = Path("/dev/shm")
"""On Linux another disk than that of temporary files."""


class Chaos:
    """A server and a mother, and what they are put to."""

    def __init__(
        self, served: web.Served, begin: Begin, folder: Path, kills: int, hosts: int
    ) -> None:
        """`hosts`: of one crawl."""
        self.served, self.begin, self.folder = served, begin, folder
        self.wanted, self.places = kills, Counter[str]()
        firsts = range(0, served.world.hosts, hosts)
        self._parts = (Part(served.world, first, first + hosts) for first in firsts)
        self.numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.has_two_disks = MEMORY.is_dir() and MEMORY.stat().st_dev != folder.stat().st_dev

    @property
    def is_enough(self) -> bool:
        """Whether as many were killed as were to be."""
        return self.places.total() >= self.wanted

    def run(self) -> None:
        """Crawls part after part until there were kills enough."""
        while not self.is_enough:
            with self._lock:
                part = next(self._parts)
            Crawl(self, part).run()


class Crawl:
    """One crawl, of one part of the world, in many lives."""

    def __init__(self, chaos: Chaos, part: Part) -> None:
        self.chaos, self.part = chaos, part
        self.chance = random.Random(part.first)
        self.ledger = chaos.folder / f"{part.first}" / "observations"
        self.ledger.mkdir(parents=True)
        self.links = part.links()
        self.lives: dict[int, Told] = {}

    def run(self) -> None:
        """Lives until one has nothing left to do; then all that must be true."""
        with self._journal() as self.journal:
            self._live()
            self._judge()

    @contextmanager
    def _journal(self) -> Iterator[Path | None]:
        """Of three crawls one has none, one has it on the same disk, one on another."""
        kind = self.part.first // (self.part.stop - self.part.first) % 3
        self.uploads = kind == 1 and self.chaos.has_two_disks
        if kind == 0:
            yield None
            return
        there = MEMORY if self.uploads else self.ledger.parent
        folder = Path(tempfile.mkdtemp(prefix="journal-", dir=there))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def _live(self) -> None:
        life, done = self._next()
        while True:
            heir = None
            if life.ends != Ends() and self.chance.random() < 0.2:
                # Who comes next is there before this one is gone, and must wait for that.
                time.sleep(self.chance.uniform(0, 0.2))
                heir = self._next()
            death = done.result()
            kept = Kept.at_rest(self.ledger, self.journal)
            self.lives[life.number] = Told.of(death, kept)
            assert death.status in (0, -9) and death.place != "hung", death
            if death.status:
                self.chaos.places[death.place] += 1
            elif heir is None:
                return
            life, done = heir or self._next()

    def _next(self) -> tuple[Life, "Future[Death]"]:
        is_last = self.chaos.is_enough or len(self.lives) >= MOST_LIVES
        number = next(self.chaos.numbers)
        life = Life(
            number=number,
            ledger=str(self.ledger),
            log=str(self.chaos.served.log_file),
            config=self._config(number),
            links=tuple(self.links),
            ends=Ends() if is_last else self._ends(),
        )
        return life, self.chaos.begin(life)

    def _ends(self) -> Ends:
        """At any instant, after any request, before any step: more often before one before which
        few have ended so far."""
        draw, chance = self.chance.random(), self.chance
        if draw < 0.4:
            return Ends(after_s=chance.uniform(0.02, 0.4) if draw < 0.2 else chance.uniform(0, 1.5))
        if draw < 0.55:
            return Ends(log_bytes=chance.randrange(100, 15_000))
        steps = [step for step in STEPS if step != "copy" or self.uploads]
        step = min(chance.sample(steps, 3), key=lambda step: self.chaos.places[step])
        return Ends(step=step, count=chance.randint(1, STEPS[step]))

    def _config(self, number: int) -> CrawlConfig:
        return CrawlConfig(
            user_agent=f"webtext/{number} (+https://example.org/bot)",
            resolve=self.chaos.served.resolve,
            min_delay_s=MIN_DELAY_S,
            back_off_s=MIN_DELAY_S,
            max_delay_s=1.0,
            max_failures=1000,
            latency_factor=LATENCY_FACTOR,
            tdm_file=False,
            min_free_gb=0.0,
            journal=str(self.journal) if self.journal else None,
        )

    def _judge(self) -> None:
        batches = pages.fetch([web.links_to(*self.links)], str(self.ledger), self._config(0))
        rows = pa.Table.from_batches(batches).to_pylist()
        assert len(rows) == len(self.links)
        ended = {row["url"]: row["outcome"] for row in rows}
        assert ended == {link: self.part.world.expected(link) for link in self.links}
        for hit in filter(self.part.holds, self.chaos.served.log):
            self.lives[number_of(hit)].hits.append(hit)
        found = chaos_proof.against(
            self.part,
            self.ledger,
            self.journal,
            list(self.lives.values()),
            min_delay_s=MIN_DELAY_S,
            latency_factor=LATENCY_FACTOR,
        )
        assert not found, "\n".join(found)


def number_of(hit: web.Hit) -> int:
    """The life that a request is of."""
    return int(hit.agent.removeprefix("webtext/").partition(" ")[0])


def killed(folder: Path, kills: int, *, at_once: int, hosts: int, max_pages: int) -> Chaos:
    """Crawls that were killed so often in all, and found in order. `at_once`: of these; they wait
    for their hosts most of the time. `hosts` and the `max_pages` of each: of one crawl."""
    world = web.World(
        seed=11,
        hosts=100 * hosts,
        max_pages=max_pages,
        robots=chaos_proof.KINDS_OF_HOSTS,
        pages=chaos_proof.KINDS_OF_PAGES,
        latency_s=0.004,
        crawl_delay_s=0.1,
    )
    with (
        web.spawn(world, folder / "web") as served,
        mother() as begin,
        ThreadPoolExecutor(at_once) as threads,
    ):
        chaos = Chaos(served, begin, folder, kills, hosts)
        for one in [threads.submit(chaos.run) for _ in range(at_once)]:
            one.result()
    assert chaos.places.total() >= kills
    return chaos


def test_ten_kills_cost_nothing_that_was_durable(tmp_path: Path) -> None:
    killed(tmp_path, 10, at_once=2, hosts=10, max_pages=3)


@pytest.mark.slow
def test_two_hundred_kills_cost_nothing_that_was_durable(tmp_path: Path) -> None:
    chaos = killed(tmp_path, 200, at_once=5, hosts=50, max_pages=20)
    known = {*STEPS, "time", "requests"} - (set() if chaos.has_two_disks else {"copy"})
    assert set(chaos.places) == known
