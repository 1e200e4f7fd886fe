"""Run tasks on Ray: a cluster that already runs is joined, never stopped; else one is embedded
here.

Page bytes never enter the object store: a task is given paths and returns its report. Ray retries
the task of a lost worker or machine; an exception of ours is never retried, it is raised with its
stage and shard.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline import shard
from pipeline.failures import TaskFailed, Unreachable
from pipeline.manifest import Report
from pipeline.shard import Task

RETRIES = 3
"""Lost workers or machines that one task may outlive."""
OBJECT_STORE_BYTES = 200 << 20
"""Only reports pass through it."""
PREFIX = "webtext-ray-"
LONGEST_PARENT = 30
"""Characters of a temporary folder's path that leave room for Ray's sockets below 107."""
CONNECT_TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 60.0
"""Most of it for a slow machine to import Ray."""
UNIMPLEMENTED = 12
"""gRPC's status of a server that has no such service."""
_ASK = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import RpcError
try:
    GcsClient(address=sys.argv[1])
except RpcError as error:
    sys.exit(error.rpc_code)
"""
MEMORY_SHARE = 0.8
"""A task never asks for more of the largest node's memory: it would wait for ever."""


@contextmanager
def connected(address: str | None, cpus: int) -> Iterator[bool]:
    """Ray within the block: at `address`, or the one that runs, or our own with `cpus` CPUs (0:
    all); True where it is our own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if _join(address):
        try:
            yield False
        finally:
            ray.shutdown()
        return
    with _embedded(cpus):
        yield True


def _join(address: str | None) -> bool:
    """Connect to a running Ray; False if none is named and none runs here."""
    named = address or os.environ.get("RAY_ADDRESS")
    if named == "local":
        return False
    found = _running_here()
    where = named if named and named != "auto" else found
    if not where or not _answers(where):
        if named:
            raise Unreachable(f"no Ray answers at {named}")
        return False
    try:
        ray.init(where, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError) as error:  # the second: of another version
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Unreachable(
            f"the Ray at {where} does not let us in: {said} (its token is wanted in "
            "RAY_AUTH_TOKEN; RAY_ADDRESS=local goes without it)"
        ) from error
    return True


def _running_here() -> str | None:
    """The address of the cluster that `ray start` began on this machine: it writes it into its
    temporary folder, which is RAY_TMPDIR's, on Linux else TMPDIR's, else that of /tmp."""
    named = os.environ.get("RAY_TMPDIR") or (sys.platform == "linux" and os.environ.get("TMPDIR"))
    path = Path(named or "/tmp") / "ray" / "ray_current_cluster"
    return path.read_text().strip() if path.exists() else None


def _answers(address: str) -> bool:
    """Whether a Ray listens there. Asked in a process of its own, which can be ended: in this one
    Ray would wait for minutes for a server that is none of its own, then end us."""
    place = address.rpartition("://")[2]
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S):
            pass
        asked = [sys.executable, "-c", _ASK, place]
        done = subprocess.run(asked, capture_output=True, timeout=ASK_TIMEOUT_S, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    # Any other refusal Ray tells in better words, once we join; ray:// is another door of it.
    return address.startswith("ray://") or done.returncode != UNIMPLEMENTED


@contextmanager
def _embedded(cpus: int) -> Iterator[None]:
    """Our own Ray, on loopback; its files go when it ends, its token never lies on a disk."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with _own_folder() as folder, _alone():
        try:
            ray.init(
                address="local",
                num_cpus=cpus or os.cpu_count(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(folder),
                _node_ip_address="127.0.0.1",
            )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _alone() -> Iterator[None]:
    """Nobody is listened to but this machine, nobody else is asked.

    Ray takes 127.0.0.1 as it is given only where it may form no cluster: on Linux it would put an
    address in its place that other machines reach. And its dashboard's process, which it starts
    even for no dashboard, asks the metadata services of three clouds where it runs, usage
    statistics or not; that Ray could not start it is a case Ray knows.
    """
    private = ray._private
    kept = private.ray_constants.ENABLE_RAY_CLUSTER, private.services.start_api_server
    private.ray_constants.ENABLE_RAY_CLUSTER = False
    private.services.start_api_server = lambda *_, **__: (None, None)
    try:
        yield
    finally:
        private.ray_constants.ENABLE_RAY_CLUSTER, private.services.start_api_server = kept


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder that is ours while the lock beside it is held; those whose lock is free were left
    by the killed and go. Short, since Ray puts sockets there, whose paths the system bounds."""
    parent = Path(tempfile.gettempdir())
    parent = parent if len(str(parent)) <= LONGEST_PARENT else Path("/tmp")
    for left in parent.glob(f"{PREFIX}*.lock"):
        with contextlib.suppress(OSError), left.open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            # Ray's agents outlive a killed driver by a minute and may write once more.
            if not left.with_suffix("").exists():
                left.unlink()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    beside = folder.with_suffix(".lock")
    try:
        with beside.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        beside.unlink(missing_ok=True)


class Cluster:
    """An executor on the Ray that is connected."""

    def __init__(self) -> None:
        self._tasks: dict[Any, Task] = {}
        self._run = ray.remote(shard.run)
        self._look()

    def _look(self) -> None:
        """What machines there are now: a cluster grows with what waits."""
        found = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = [node["Resources"] for node in found if node["Alive"]]
        self.capacity = 4 * int(sum(node.get("CPU", 0) for node in nodes)) + 4
        self._memory = max(node.get("memory", 0) for node in nodes) * MEMORY_SHARE

    def submit(self, task: Task) -> None:
        """Send a task, with what it needs."""
        options = self._run.options(
            name=f"{task.stage.makes}.{task.phase}.{task.index}",
            num_cpus=task.step.cpus,
            memory=int(min(task.step.memory_gb * (1 << 30), self._memory)),
            max_retries=RETRIES,
            retry_exceptions=False,
        )
        self._tasks[options.remote(task)] = task

    def wait(self) -> tuple[Task, Report]:
        """The next task that is done."""
        done, _ = ray.wait(list(self._tasks), num_returns=1)
        task = self._tasks.pop(done[0])
        self._look()
        try:
            return task, ray.get(done[0])
        except RayTaskError as error:
            raise TaskFailed(*task.key, error.cause or error) from error
        except RayError as error:
            raise TaskFailed(*task.key, error) from error

    def cancel(self) -> None:
        """End what is still under way: a joined cluster would go on with it."""
        for reference in self._tasks:
            with contextlib.suppress(RayError):
                ray.cancel(reference, force=True)


@contextmanager
def executor(address: str | None, cpus: int) -> Iterator[Cluster]:
    """An executor for the length of the block; what is unfinished at its end is cancelled."""
    with connected(address, cpus):
        cluster = Cluster()
        try:
            yield cluster
        finally:
            cluster.cancel()
