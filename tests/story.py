"""A small web being served and a recipe on it, for the tests that tell the whole story."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.demo import dump, server, site
from pipeline.demo.server import Served

ROOT = Path(__file__).parents[1]
RECIPE = str(ROOT / "recipes/demo.toml")
DEADLINE_S = 300
"""A hang ends the test; no assertion depends on it."""


@dataclass
class Story:
    """A served web of a hundred pages and its dump."""

    served: Served
    dump: Path
    pages: int

    def words(self, root: Path, *more: str) -> list[str]:
        """The recipe and overrides of a run of this web in `root`."""
        return [
            RECIPE,
            f"root={root}",
            f"crawl.submissions=['{self.dump}']",
            f'crawl.resolve."*.test"="{self.served.address}"',
            "crawl.shards=2",
            "crawl.timeout_s=5",  # the page that never answers costs it once
            "crawl.retries=0",
            *more,
        ]

    def run(self, command: str, root: Path, *more: str, code: int = 0) -> str:
        """Run a command as a user would; what it prints on both streams."""
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", command, *self.words(root), *more],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def start(self, command: str, root: Path, *more: str) -> subprocess.Popen[str]:
        """The same in the background, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", command, *self.words(root), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )


@contextmanager
def told(folder: Path) -> Iterator[Story]:
    """Build a web of a hundred pages, write its dump, serve it."""
    web = site.build(pages=100, hosts=20)
    dump.write(web, folder / "RS_story.zst", seed=1)
    with server.serve(web) as served:
        yield Story(served, folder / "RS_story.zst", 100)


def root_hash(output: str) -> str:
    """The root hash that a rebuild printed."""
    (line,) = [line for line in output.splitlines() if line.startswith("root hash ")]
    return line.removeprefix("root hash ")


def wait_for(process: subprocess.Popen[str], root: Path, reports: int) -> bool:
    """Wait until the run has this many reports; False if it ended before."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < DEADLINE_S:
        if len(list(root.glob("*/*/reports/*.json"))) >= reports:
            return True
        time.sleep(0.01)  # looks at the disk; nothing is decided by how long it takes
    return False


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL the driver and every process it started, Ray's own included."""
    for pid in [process.pid, *descendants(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def is_rank(pid: int) -> bool:
    """Whether this is a living process that trains: torch's launcher, a rank, Ray's worker."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "training.zero" in words or "RayTrainWorker" in words


def descendants(pid: int) -> list[int]:
    """All processes below this one, by /proc."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found, front = [], [pid]
    while front:
        front = [child for parent in front for child in children.get(parent, [])]
        found += front
    return found
