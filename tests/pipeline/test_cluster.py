"""Ray as a guest and as a host: what runs is joined and left running, what we embed goes whole."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from pipeline import cluster, room, whereabouts
from pipeline import config as settings
from pipeline.failures import Unreachable
from pipeline.plan import plan
from pipeline.shard import Task
from pipeline.store import Dataset
from tests import story

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "urls.txt").write_text("http://a-page.com/\n")
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'root = "{tmp_path}/run"\nworkers = 1\n[crawl]\nlive = false\nshards = 1\n'
        f'submissions = ["{tmp_path}/urls.txt"]\n'
    )
    return path


def rebuild(recipe: Path, *words: str, code: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "rebuild", str(recipe), *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_an_embedded_ray_leaves_nothing_behind_and_sweeps_after_the_killed(
    recipe: Path, tmp_path: Path
):
    home, temporary = tmp_path / "home", Path("/tmp") / f"wt{os.getpid()}"
    home.mkdir()
    temporary.mkdir()
    try:
        for name in ("left", "living"):
            (temporary / f"{whereabouts.PREFIX}{name}").mkdir()
            (temporary / f"{whereabouts.PREFIX}{name}.lock").touch()
        living = {f"{whereabouts.PREFIX}living", f"{whereabouts.PREFIX}living.lock"}
        with (temporary / f"{whereabouts.PREFIX}living.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rebuild(recipe, HOME=str(home), TMPDIR=str(temporary))
        assert list(home.iterdir()) == []
        assert {entry.name for entry in temporary.iterdir() if "ray" in entry.name} == living
    finally:
        subprocess.run(["rm", "-rf", str(temporary)], check=True)


def test_a_ray_that_runs_is_joined_and_not_stopped(recipe: Path, tmp_path: Path):
    ray = str(Path(sys.executable).with_name("ray"))
    folder = Path("/tmp") / f"wr{os.getpid()}"
    token = {"RAY_AUTH_TOKEN": "of-this-test", "RAY_AUTH_MODE": "token", "RAY_ADDRESS": ""}
    # As on macOS: Ray takes 127.0.0.1 as it is given, and listens there alone.
    loopback = token | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    temporary = loopback | {"RAY_TMPDIR": str(folder)}
    elsewhere = free_port()
    head = subprocess.Popen(
        [ray, "start", "--head", "--block", "--port=0", "--num-cpus=2", "--disable-usage-stats",
         "--include-dashboard=false", "--node-ip-address=127.0.0.1",
         f"--node-manager-port={elsewhere}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | temporary | {"HOME": str(tmp_path)},
    )  # fmt: skip
    try:
        address = started(head, folder / "ray/ray_current_cluster")
        logs = folder / "ray/session_latest/logs"
        rebuild(recipe, "--address", address, **loopback)
        assert drivers(logs) == 1 and head.poll() is None
        # Without an address it is found where `ray start` has written it down.
        rebuild(recipe, "--remake", "links", **temporary)
        assert drivers(logs) == 2 and head.poll() is None
        # Another of its doors speaks the same protocol, but is not the one to join at.
        wrong = f"127.0.0.1:{elsewhere}"
        refused = rebuild(recipe, "--remake", "links", "--address", wrong, code=1, **loopback)
        assert refused.splitlines()[-1] == f"webtext: no Ray answers at {wrong}"
    finally:
        below = story.descendants(head.pid)
        os.kill(head.pid, signal.SIGTERM)
        head.wait(DEADLINE_S)
        for pid in below:
            story.kill(pid)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_machines_that_join_get_work(monkeypatch):
    nodes = [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 2.0, "memory": 1e9}}]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(cluster.ray, "wait", lambda references, **_: (references[:1], []))
    monkeypatch.setattr(cluster.ray, "get", lambda _: "report")
    executor = cluster.Cluster()
    assert executor.capacity == 12
    nodes.append({"NodeID": "b", "Alive": True, "Resources": {"CPU": 16.0, "memory": 1e9}})
    executor._tasks = {"reference": "task"}
    assert executor.wait() == ("task", "report")
    assert executor.capacity == 76


def test_a_reader_of_a_dump_asks_for_the_memory_of_its_window(recipe: Path, monkeypatch):
    """2^31 bytes and 500 MB: Ray starts no more of them on a machine than have room there."""

    def given(_: Task) -> dict[str, float]:
        return ray.get_runtime_context().get_assigned_resources()

    monkeypatch.setattr(cluster.shard, "run", given)
    stage = plan(settings.load(recipe, []))[0]
    task = Task(stage, "main", 0, Dataset("submissions", "f", recipe.parent, 1), {})
    with cluster.executor(None, 1) as executor:
        executor.submit(task)
        done, resources = executor.wait()
        largest = max(node["Resources"]["memory"] for node in ray.nodes())
    assert done is task
    assert resources["memory"] >= min(2**31 + 500_000_000, room.MEMORY_SHARE * largest - 1)


def test_what_listens_and_is_no_ray_is_told(monkeypatch):
    monkeypatch.setattr(whereabouts, "ASK_TIMEOUT_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Unreachable, match=f"no Ray answers at {address}"):
            cluster.connected(address, 1).__enter__()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def drivers(logs: Path) -> int:
    """Programs that this Ray has worked for, by the logs of their drivers."""
    return len(list(logs.glob("python-core-driver-*.log")))


LISTENING = """
from contextlib import suppress
import psutil
from pipeline import cluster, room, whereabouts
with cluster.connected(None, 1):
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            for socket in process.net_connections("tcp"):
                if socket.status == psutil.CONN_LISTEN:
                    print(socket.laddr.ip)
"""


def test_an_embedded_ray_listens_on_loopback_alone():
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        capture_output=True, text=True, cwd=ROOT, timeout=DEADLINE_S, check=True,
    )  # fmt: skip
    assert set(done.stdout.split()) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert len(done.stdout.split()) > 3


def started(head: subprocess.Popen[bytes], written: Path) -> str:
    """The address that `ray start` writes down."""
    ends = time.monotonic() + DEADLINE_S
    while not (written.exists() and written.read_text()):
        assert head.poll() is None and time.monotonic() < ends, "ray start wrote no address"
        time.sleep(0.05)
    return written.read_text().strip()


def test_workers_end_with_their_driver(recipe: Path):
    """No orphan goes on writing after the driver is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "rebuild", str(recipe)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    workers: set[int] = set()
    while process.poll() is None and story.reports(recipe.parent / "run") < 2:
        below = story.descendants(process.pid)
        workers |= {pid for pid in below if is_worker(story.command(pid))}
        time.sleep(0.01)
    process.kill()
    process.wait()
    ends = time.monotonic() + DEADLINE_S
    while any(map(story.command, workers)) and time.monotonic() < ends:
        time.sleep(0.1)
    assert workers and not any(map(story.command, workers))


def is_worker(title: str) -> bool:
    """Ray's agents outlive a driver by a minute, but write nothing of ours."""
    return title.startswith("ray::") and "Agent" not in title
