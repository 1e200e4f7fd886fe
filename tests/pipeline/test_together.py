"""Tasks that wait for the world together in long-lived processes: in threads here, in actors on
Ray; given back, moved, outliving the killed; and leaving room for what computes."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline import cluster, manifest, rebuild, room, state
from pipeline.config import Config
from pipeline.crew import RETRIES
from pipeline.failures import TaskFailed
from pipeline.local import Local
from pipeline.plan import stages
from pipeline.shard import Task
from pipeline.stage import Step
from pipeline.store import Dataset
from tests import story
from tests.pipeline import errands
from tests.pipeline.errands import SHARDS, read_lines

ROOT = Path(__file__).parents[2]


def make(plan, root: Path, executor=None) -> str:
    """The root hash."""
    rebuild.rebuild(plan, root, SHARDS, executor or Local(), lambda *_: None)
    states = state.inspect(plan, root, SHARDS)
    assert {entry.status for entry in states.values()} == {"whole"}
    return manifest.root_hash({n: s.dataset.manifest.set_hash for n, s in states.items()})


@pytest.fixture
def expected(tmp_path: Path) -> str:
    """The root hash of an undisturbed run, one task after another."""
    return make(errands.plan(tmp_path / "alone"), tmp_path / "undisturbed")


def visited_once(folder: Path) -> bool:
    logged = read_lines(folder / "visits.log")
    return len(logged) == len(set(logged)) == sum(errands.wanted().values())


def test_tasks_of_a_step_run_at_once_in_one_process(tmp_path: Path, expected: str):
    plan = errands.plan(tmp_path / "told", together=4, trouble=errands.wait_for_company)
    assert make(plan, tmp_path / "run") == expected
    assert visited_once(tmp_path / "told")


def test_no_more_of_them_than_run_together(tmp_path: Path):
    plan = errands.plan(tmp_path / "told", together=3, trouble=errands.wait_for_the_stop)
    executor = Local()
    stage = plan[1]
    tasks = [Task(stage, "before/4", n, Dataset("visits", "f", tmp_path, 8), {}) for n in range(4)]
    free = []
    for task in tasks:
        free.append(executor.free(task))
        executor._threads[task.key] = threading.Thread(), errands.Turn()
    assert free == [True, True, True, False]
    plain = Task(stage, "main", 0, tasks[0].output, {})
    assert executor.free(plain)


def test_one_that_fails_ends_the_others_and_is_told_by_its_name(tmp_path: Path):
    told = tmp_path / "told"
    plan = errands.plan(told, together=4, trouble=errands.one_explodes)
    with pytest.raises(TaskFailed) as raised:
        make(plan, tmp_path / "run")
    name = (told / "exploding").read_text().rpartition("-")[2]
    assert str(raised.value) == f"visits (before/4), task {name}: a walker exploded"
    assert len(read_lines(told / "given_back.log")) >= 2
    assert not [t for t in threading.enumerate() if t.name.startswith("visits-")]


@pytest.mark.parametrize("place", ["first", "last"])
def test_what_computes_goes_on_while_others_wait(tmp_path: Path, place: str):
    told = tmp_path / "told"
    plan = errands.plan(told, together=2, trouble=errands.until_others_computed)
    beside = errands.beside(told)
    make((beside, *plan) if place == "first" else (*plan, beside), tmp_path / "run")


def test_a_stopped_run_goes_on_where_its_tasks_stopped(tmp_path: Path, expected: str):
    told = tmp_path / "told"
    with pytest.raises(TaskFailed):
        make(errands.plan(told, together=4, trouble=errands.one_explodes), tmp_path / "run")
    assert make(errands.plan(told, together=4), tmp_path / "run") == expected
    assert visited_once(told)


SCRIPT = """
import sys
from contextlib import closing
from pathlib import Path
from pipeline import cluster, rebuild
from pipeline.local import Local
from tests.pipeline import errands
folder, trouble = Path(sys.argv[1]), getattr(errands, sys.argv[2])
plan = errands.plan(folder / "told", together=4, trouble=trouble)
with closing(Local()) if sys.argv[3] == "local" else cluster.executor(None, 2) as executor:
    rebuild.rebuild(plan, folder / "run", errands.SHARDS, executor, lambda *_: None)
"""


def run(folder: Path, trouble: str, where: str) -> subprocess.Popen[bytes]:
    """A run in a process of its own, once all its tasks wait: all that may run together."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), trouble, where],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    wanted = 4 if where == "local" else SHARDS
    errands.wait_until(
        lambda: (
            len(read_lines(folder / "told" / "pids.log")) >= wanted or process.poll() is not None
        )
    )
    assert process.poll() is None, process.stderr and process.stderr.read()
    return process


def gone(folder: Path) -> None:
    """None of the processes that ran tasks goes on."""
    pids = {int(pid) for pid in read_lines(folder / "told" / "pids.log")}
    assert pids
    errands.wait_until(lambda: not any(map(story.command, pids)))


WHERE = ["local", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.mark.parametrize("where", WHERE)
def test_interrupted_tasks_are_asked_to_stop_and_no_process_is_left(tmp_path: Path, where: str):
    process = run(tmp_path, "wait_for_the_stop", where)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=errands.DEADLINE_S)
    assert complaint.rstrip().endswith(b"KeyboardInterrupt")
    assert len(read_lines(tmp_path / "told" / "given_back.log")) >= (4 if where == "local" else 8)
    gone(tmp_path)


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_that_goes_on(tmp_path: Path):
    process = run(tmp_path, "deaf", "ray")
    process.kill()
    process.communicate(timeout=errands.DEADLINE_S)
    gone(tmp_path)


@pytest.fixture(scope="module")
def connected() -> Iterator[None]:
    """One Ray of two CPUs for those that start none of their own."""
    with cluster.connected(None, 2):
        yield


@pytest.fixture
def executor(connected: None) -> Iterator[cluster.Cluster]:
    executor = cluster.Cluster()
    yield executor
    executor.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("processes, cpus", [(1, 2.0), (2, 1.0), (3, 0.6)])
def test_any_number_of_processes_gives_the_same_root_hash(
    tmp_path: Path, expected: str, executor, processes: int, cpus: float
):
    told = tmp_path / "told"
    trouble = partial(errands.wait_for_processes, count=processes)
    plan = errands.plan(told, together=8, cpus=cpus, trouble=trouble)
    assert make(plan, tmp_path / "run", executor) == expected
    assert visited_once(told)
    pids = {line.split()[1] for line in read_lines(told / "tasks.log")}
    assert len(pids) == processes  # the same in all rounds


@pytest.mark.slow
def test_a_killed_process_costs_nothing_that_was_done(tmp_path: Path, expected: str, executor):
    told = tmp_path / "told"
    plan = errands.plan(told, together=4, trouble=errands.killed_once)
    assert make(plan, tmp_path / "run", executor) == expected
    done = (told / "killed").read_text().split()
    begun = Counter(read_lines(told / "begun.log"))
    assert done and all(begun[f"0 {index}"] == 1 for index in done)
    assert max(begun.values()) >= 2  # what it was at is done again
    assert visited_once(told)


@pytest.mark.slow
def test_what_kills_its_process_again_and_again_is_told(tmp_path: Path, executor):
    told = tmp_path / "told"
    plan = errands.plan(told, together=4, trouble=errands.killed_always)
    with pytest.raises(TaskFailed, match=r"visits \(before/4\), task \d: ActorDiedError"):
        make(plan, tmp_path / "run", executor)
    assert len(set(read_lines(told / "pids.log"))) >= RETRIES + 1


@pytest.mark.slow
def test_tasks_are_moved_to_a_process_that_idles(tmp_path: Path, expected: str, executor):
    told = tmp_path / "told"
    plan = errands.plan(told, together=4, trouble=errands.slow_in_one_process)
    assert make(plan, tmp_path / "run", executor) == expected
    slow = (told / "slow").read_text()
    done = Counter(pid for number, pid in map(str.split, read_lines(told / "tasks.log"))
                   if number == "0")  # fmt: skip
    assert done[slow] == 1 and done.total() == SHARDS and len(done) == 2
    # First half of four, then half of two.
    given_back = Counter(read_lines(told / "given_back.log"))
    assert given_back[f"0 {slow}"] == 3
    assert visited_once(told)


@pytest.mark.slow
def test_ray_tells_which_task_failed_and_ends_the_others(tmp_path: Path, executor):
    told = tmp_path / "told"
    plan = errands.plan(told, together=4, trouble=errands.one_explodes)
    with pytest.raises(TaskFailed, match=r"^visits \(before/4\), task \d: a walker exploded$"):
        make(plan, tmp_path / "run", executor)
    executor.cancel()
    assert len(read_lines(told / "given_back.log")) >= 2


def test_processes_leave_room_for_what_computes():
    """Of memory they take half of each machine, of CPUs as many as the step says."""
    machine = {"CPU": 8.0, "memory": 16.0 * 2**30}
    step = Step(run=print, schema=None, together=4, cpus=2.0, memory_gb=1.0)
    assert room.room_for(step, [machine]) == 4
    assert room.room_for(step, [machine, machine, {"CPU": 1.0, "memory": 1e9}]) == 8
    large = Step(run=print, schema=None, together=4, cpus=1.0, memory_gb=3.0)
    assert room.room_for(large, [machine]) == 2
    larger = Step(run=print, schema=None, together=4, cpus=1.0, memory_gb=300.0)
    assert room.room_for(larger, [machine]) == 1
    assert room.memory_of(larger, [machine]) == int(0.8 * machine["memory"])


def test_a_process_that_asks_has_the_memory_for_ten_million_links():
    """In the loopback world it held 286 bytes for each of its links."""
    pages = next(stage for stage in stages(Config(root="run"), (), []) if stage.makes == "pages")
    asking = [step for step in pages.before if step.together > 1]
    assert asking and all(step.memory_gb * 2**30 >= 10_000_000 * 286 for step in asking)
