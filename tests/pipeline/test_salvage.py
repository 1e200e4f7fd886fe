"""What killed processes leave on their machines is saved before anybody else begins: on a Ray of
two machines, which here are two in name."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from pipeline import cluster, rebuild
from pipeline.failures import TaskFailed
from tests import story
from tests.pipeline import errands, journals
from tests.pipeline.errands import read_lines
from tests.pipeline.journals import COUNT, SHARDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LOST = partial(journals.killed, times=2)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A Ray of two machines of one CPU each; one process of ours finds room on either."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}
    ray = Cluster(initialize_head=True, head_node_args=node, connect=False)
    ray.add_node(num_cpus=1, object_store_memory=100 << 20)
    yield ray
    ray.shutdown()


def make(ray: Cluster, folder: Path, plan) -> None:
    with cluster.executor(ray.address, 1) as executor:
        rebuild.rebuild(plan, folder / "run", SHARDS, executor, lambda *_: None)


def again(folder: Path) -> list[str]:
    """What was looked at although it had been looked at. All is in the ledger now."""
    assert len(list((folder / "ledger").iterdir())) == COUNT
    return read_lines(folder / "again.log")


def test_what_the_killed_left_is_saved_before_its_tasks_begin_again(two: Cluster, tmp_path: Path):
    make(two, tmp_path, journals.plan(tmp_path, LOST))
    assert again(tmp_path) == []
    assert len(read_lines(tmp_path / "salvaged.log")) >= 2


def test_without_that_it_would_be_looked_at_again(two: Cluster, tmp_path: Path):
    make(two, tmp_path, journals.plan(tmp_path, LOST, None))
    assert again(tmp_path)


DRIVING = """
import sys
from pathlib import Path
from pipeline import cluster, rebuild
from tests.pipeline import journals
folder = Path(sys.argv[1])
with cluster.executor(sys.argv[2], 1) as executor:
    plan = journals.plan(folder, journals.for_ever)
    rebuild.rebuild(plan, folder / "run", journals.SHARDS, executor, lambda *_: None)
"""


def test_what_a_killed_run_left_is_saved_by_the_next(two: Cluster, tmp_path: Path):
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVING, str(tmp_path), two.address],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ,
    )  # fmt: skip
    errands.wait_until(lambda: journals.on_disks(tmp_path) == SHARDS or driver.poll() is not None)
    pids = [int(line.split()[1]) for line in read_lines(tmp_path / "began.log")]
    driver.kill()
    driver.wait()
    errands.wait_until(lambda: not any(map(story.command, pids)))
    make(two, tmp_path, journals.plan(tmp_path))
    assert again(tmp_path) == []
    assert set(read_lines(tmp_path / "salvaged.log")) == journals.machines(tmp_path)
    assert len(journals.machines(tmp_path)) == 2


def test_a_lost_machine_costs_what_lay_on_it(
    two: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def lose() -> None:
        errands.wait_until(lambda: journals.on_disks(tmp_path) == SHARDS)
        (lost,) = [node for node in two.list_all_nodes() if not node.is_head()]
        two.remove_node(lost, allow_graceful=False)
        (tmp_path / "lost").write_text(lost.node_id)

    thread = threading.Thread(target=lose)
    thread.start()
    make(two, tmp_path, journals.plan(tmp_path, journals.until_others_are_gone))
    thread.join()
    assert 0 < len(again(tmp_path)) < SHARDS
    assert "a machine is lost" in caplog.text


@pytest.mark.parametrize(
    ("saving", "reason"),
    [(journals.salvage_nothing, "OSError: this disk is full"),
     (journals.salvage_and_die, "WorkerCrashedError")],
)  # fmt: skip
def test_what_cannot_be_saved_ends_the_run_with_the_reason(
    two: Cluster, tmp_path: Path, saving: Callable[..., None], reason: str
):
    plan = journals.plan(tmp_path, saving=saving)
    with pytest.raises(TaskFailed, match=rf"seen \(before/0\), task 0: {reason}"):
        make(two, tmp_path, plan)
    assert not journals.machines(tmp_path)
