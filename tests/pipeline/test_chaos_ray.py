"""The crawl on Ray is killed five times, a worker of it, its driver or all of it, and goes on:
nothing that was durable is asked for again, lost or doubled, and no host is ever asked too soon."""

import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from crawl import canonical
from pipeline import state
from pipeline.store import range_of
from tests import chaos_proof, story, web
from tests.chaos_proof import Kept, Part, Told
from tests.web_log import LAG_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEADLINE_S = 180
HOSTS, SHARDS = 150, 12
MIN_DELAY_S, LATENCY_FACTOR = 0.03, 2.0
KILLS = ("worker", "worker", "driver", "worker", "all")
LOCK = re.compile(r"FLOCK +ADVISORY +WRITE (\d+) [0-9a-f]+:[0-9a-f]+:(\d+) ")
"""A line of /proc/locks: who holds it, on which file."""


class Crawl:
    """One crawl and its lives. Each range of ids is asked for by one process at a time, so that
    each has lives of its own."""

    def __init__(self, served: web.Served, folder: Path, journal: Path) -> None:
        self.served, self.part = served, Part(served.world, 0, served.world.hosts)
        self.links, self.chance = self.part.links(), random.Random(7)
        self.root, self.recipe, self.journal = folder / "run", folder / "recipe.toml", journal
        self.ledger = self.root / "observations"
        (folder / "links.txt").write_text("\n".join(self.links))
        self.recipe.write_text(
            f'root = "{self.root}"\nworkers = 2\n[crawl]\nshards = {SHARDS}\nmin_karma = 0\n'
            f'submissions = ["{folder}/links.txt"]\njournal = "{journal}"\n'
            'user_agent = "webtext-test/1.0 (+http://localhost/)"\n'
            f"min_delay_s = {MIN_DELAY_S}\nback_off_s = {MIN_DELAY_S}\nmax_delay_s = 1.0\n"
            f"latency_factor = {LATENCY_FACTOR}\nmax_failures = 1000\n"
            "tdm_file = false\nmin_free_gb = 0.0\n[crawl.resolve]\n"
            + "".join(f'"{name}" = "{place}"\n' for name, place in served.resolve.items())
        )
        self.lives: dict[int, list[Told]] = {}
        self._began = dict.fromkeys(range(SHARDS), 0.0)
        """Of each range, when the life that is lived now began at the earliest."""

    def run(self) -> None:
        """Kills it as often as it is to be, then lets it end."""
        left = list(KILLS)
        while left:
            with self._begun() as process:
                while left and (kind := left.pop(0)) == "worker":
                    self._await(process)
                    self._kill_worker(process)
                if kind != "worker":
                    self._await(process)
                    self._kill(process, everything=kind == "all")
        with self._begun() as process:
            told, _ = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, told
        now = time.monotonic()
        self._over(range(SHARDS), killed=now, over=now, next_began=now)

    @contextmanager
    def _begun(self) -> Iterator[subprocess.Popen[str]]:
        began = time.monotonic()
        self._began = dict.fromkeys(range(SHARDS), began)
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "rebuild", str(self.recipe), "--until", "pages"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                story.kill_all(process)
            assert process.stdout
            process.stdout.close()

    def _await(self, process: subprocess.Popen[str]) -> None:
        """Waits until it has asked for some pages, too few for it to be over soon."""
        wanted = len(self.served.log) + self.chance.randint(1, len(self.links) // 4)
        story.wait_until(process, lambda: len(self.served.log) >= wanted)

    def _kill_worker(self, process: subprocess.Popen[str]) -> None:
        """One of those who crawl. Whose ranges are its, and that all it has sent has come, is made
        sure of while it stands still."""
        while not (workers := self._workers(process)):
            time.sleep(0.01)
        victim = self.chance.choice(sorted(workers))
        stood = time.monotonic()
        story.kill(victim, signal.SIGSTOP)
        time.sleep(LAG_S)
        ranges = self._workers(process).get(victim, set())
        story.kill(victim)
        over = gone({victim})
        self._over(ranges, killed=stood, over=over, next_began=over)

    def _kill(self, process: subprocess.Popen[str], *, everything: bool) -> None:
        """The driver, whose workers end by themselves, or at once all that it has begun."""
        workers = set(filter(is_worker, story.descendants(process.pid)))
        killed = time.monotonic()
        if everything:
            story.kill_all(process)
        else:
            process.kill()
            process.wait()
        over = gone(workers)
        self._over(range(SHARDS), killed=killed, over=over, next_began=over)

    def _over(
        self, ranges: Iterable[int], *, killed: float, over: float, next_began: float
    ) -> None:
        kept = Kept.at_rest(self.ledger, self.journal)
        for one in ranges:
            life = Told(self._began[one], killed, over, kept, is_alone=False)
            self.lives.setdefault(one, []).append(life)
            self._began[one] = next_began

    def _workers(self, process: subprocess.Popen[str]) -> dict[int, set[int]]:
        """The workers that crawl, and the ranges that each has claimed."""
        assert process.poll() is None, "it is over before it was killed"
        claims = {}
        for path in self.ledger.glob("*-live-*.claim"):
            with suppress(FileNotFoundError):  # whose task is done
                claims[path.stat().st_ino] = range_of(bytes.fromhex(path.name[:8]), SHARDS)
        found: dict[int, set[int]] = {}
        for pid, file in LOCK.findall(Path("/proc/locks").read_text()):
            if int(file) in claims:
                found.setdefault(int(pid), set()).add(claims[int(file)])
        return found

    def judge(self) -> None:
        """All that must be true of it."""
        pages = state.datasets(self.root)["pages"]
        rows = [row for batch in pages.all() for row in batch.to_pylist()]
        assert len(rows) == len(self.links)
        ended = {row["url"]: row["outcome"] for row in rows}
        assert ended == {link: self.part.world.expected(link) for link in self.links}
        for hit in self.served.log:
            lives = self.lives[range_of(canonical.domain_id(hit.host), SHARDS)]
            [life for life in lives if life.began <= hit.at][-1].hits.append(hit)
        found = chaos_proof.against(
            self.part,
            self.ledger,
            self.journal,
            [life for lives in self.lives.values() for life in lives],
            min_delay_s=MIN_DELAY_S,
            latency_factor=LATENCY_FACTOR,
        )
        assert not found, "\n".join(found)


def is_worker(pid: int) -> bool:
    """Whether a process crawls, or could: Ray's agents outlive a driver, but write nothing."""
    title = story.command(pid)
    return title.startswith("ray::") and "Agent" not in title


def gone(pids: set[int]) -> float:
    """The moment at which they are, for certain."""
    ends = time.monotonic() + DEADLINE_S
    while any(map(story.command, pids)):
        assert time.monotonic() < ends, "the killed live on"
        time.sleep(0.001)
    return time.monotonic()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Path]:
    """On another disk than the ledger, where this machine has one."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="journal-", dir=memory if memory.is_dir() else tmp_path))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="who has claimed what is read there")
def test_five_kills_cost_nothing_that_was_durable(tmp_path: Path, journal: Path) -> None:
    world = web.World(
        seed=13,
        hosts=HOSTS,
        max_pages=20,
        robots=chaos_proof.KINDS_OF_HOSTS,
        pages=chaos_proof.KINDS_OF_PAGES,
        latency_s=0.004,
        crawl_delay_s=0.1,
    )
    with web.spawn(world, tmp_path / "web") as served:
        crawl = Crawl(served, tmp_path, journal)
        crawl.run()
        crawl.judge()
