"""A small web being served and a recipe on it, for the tests that tell the whole story."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

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

    @contextmanager
    def started(self, command: str, root: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
        """The same in the background; killed with all it started where the block leaves it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", command, *self.words(root), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            yield process
            process.wait(DEADLINE_S)
        finally:
            if process.poll() is None:
                kill_all(process)
            assert process.stdout
            process.stdout.close()


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


def wait_until(process: subprocess.Popen[str], seen: Callable[[], bool]) -> None:
    """Wait until something is seen of the process; a failure with its words if it ended before."""
    began = time.monotonic()
    while not seen():
        if process.poll() is not None or time.monotonic() - began > DEADLINE_S:
            kill_all(process)
            assert process.stdout
            pytest.fail(f"never seen; status {process.returncode}: {process.stdout.read()}")
        time.sleep(0.01)  # looks at the disk; nothing is decided by how long it takes


def reports(root: Path) -> int:
    """Tasks whose reports lie in a run."""
    return len(list(root.glob("*/*/reports/*.json")))


def losses(root: Path) -> list[float]:
    """The losses of the one training that lies in a run, step by step."""
    lines = [line for path in root.glob("training/*/metrics.jsonl") for line in path.open()]
    return [json.loads(line)["loss"] for line in lines if line.endswith("\n")]


def copy(run: Path, root: Path) -> None:
    """The datasets of a run in a root of their own, without what was trained on them."""
    shutil.copytree(run, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("training"))


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A small disk of its own; the test is skipped where this user may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def kill(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Send a process a signal, if it lives."""
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return


def freeze(process: subprocess.Popen[str]) -> None:
    """Stop the driver and every process it started where they are."""
    for pid in [process.pid, *descendants(process.pid)]:
        kill(pid, signal.SIGSTOP)


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL the driver and every process it started, Ray's own included."""
    for pid in [process.pid, *descendants(process.pid)]:
        kill(pid)
    process.wait()


def interrupted(process: subprocess.Popen[str]) -> bool:
    """Whether the process ends as after Ctrl-C: 130, one line that says so, no traceback."""
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in output, output
    told = "webtext: interrupted; the same command goes on where it was"
    assert output.splitlines()[-1:] == [told], output
    return process.returncode == 130


def ranks_until(process: subprocess.Popen[str], seen: Callable[[], bool]) -> set[int]:
    """The processes that train, once something is seen of the training."""
    ranks: set[int] = set()

    def looked() -> bool:  # they are looked for on the way: a fast run may soon be over
        ranks.update(pid for pid in descendants(process.pid) if is_rank(pid))
        return seen()

    wait_until(process, looked)
    assert ranks
    return ranks


def crawls(process: subprocess.Popen[str]) -> bool:
    """Whether workers of Ray that crawl stand below this process."""
    return any(command(pid).startswith("ray::pages") for pid in descendants(process.pid))


def ended(ranks: set[int]) -> bool:
    """Whether these processes end."""
    ends = time.monotonic() + DEADLINE_S
    while any(map(is_rank, ranks)) and time.monotonic() < ends:
        time.sleep(0.1)
    return not any(map(is_rank, ranks))


def is_rank(pid: int) -> bool:
    """Whether this is a living process that trains: torch's launcher, a rank, Ray's worker."""
    words = command(pid)
    return "training.rank" in words or "RayTrainWorker" in words


def command(pid: int) -> str:
    """What a living process calls itself; nothing of a dead one."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


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
