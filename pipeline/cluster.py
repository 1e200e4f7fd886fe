"""Run tasks on Ray: a cluster that already runs is joined, never stopped; else one is embedded
here.

Page bytes never enter the object store: a task is given paths and returns its report. Ray retries
the task of a lost worker or machine; an exception of ours is never retried, it is raised with its
stage and shard.
"""

import contextlib
import itertools
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import shard, whereabouts
from pipeline.crew import RETRIES, Crew
from pipeline.failures import TaskFailed, Unreachable
from pipeline.manifest import Report
from pipeline.room import memory_of, room_for
from pipeline.shard import Key, Task
from pipeline.stage import GivenBack, Step, Turn

_log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 200 << 20
"""Only reports pass through it."""
GRACE_S = 45.0
"""To stop at a whole place, for tasks that run together, when all ends early: longer than what they
wait for takes."""
DYING_S = 10.0
"""That a killed process may take to be gone, before what it left is saved without it."""


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
    found = whereabouts.running_here()
    where = named if named and named != "auto" else found
    if not where or not whereabouts.answers(where):
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


@contextmanager
def _embedded(cpus: int) -> Iterator[None]:
    """Our own Ray, on loopback; its files go when it ends, its token never lies on a disk."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with whereabouts.own_folder() as folder, _alone():
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


Kind = tuple[str, int, float, float]
Place = tuple[str, int]
"""Of a process: the machine, as Ray names it, and its number there."""


def _saved(salvage: Callable[[float], None], killed: int | None) -> None:
    """Runs where a process was `killed`, or where nobody of ours is."""
    ends = time.monotonic() + DYING_S
    while killed and _lives(killed) and time.monotonic() < ends:
        time.sleep(0.05)
    salvage(0.0 if killed else DYING_S)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another's, of the same number
        return True
    return True


class Shared:
    """A long-lived process of ours on Ray, whose threads run tasks together."""

    def __init__(self) -> None:
        self._turns: dict[int, Turn] = {}

    def start(self) -> Place:
        """Answers once the process is there: where."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def run(self, task: Task, attempt: int) -> Report | None:
        """Do a task; None where it was given back. `attempt` names this doing of it."""
        turn = self._turns.setdefault(attempt, Turn())
        try:
            return shard.run(task, turn)
        except GivenBack:
            return None
        finally:
            self._turns.pop(attempt, None)

    def want_back(self, attempt: int) -> None:
        """Ask for a task back that runs, or is about to."""
        self._turns.setdefault(attempt, Turn()).want_back()


class Processes:
    """The processes that the tasks of one kind share: as many as there is room for, no more than
    tasks; all of them for as long as there is such a task."""

    def __init__(self, name: str, step: Step, memory: int) -> None:
        self.crew = Crew(step.together)
        self.step = step
        # Named by what it makes, as the other workers are, for who looks at the processes. It takes
        # none of the CPUs on which tasks compute; one thread more for what is said to it meanwhile.
        self._process: Any = ray.remote(type(name, (Shared,), {})).options(
            num_cpus=0,
            memory=memory,
            max_concurrency=step.together + 1,
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )
        self._numbers = itertools.count()
        self._actors: dict[int, Any] = {}
        self._under_way: dict[Any, tuple[int, Task | None, int]] = {}
        """By reference: the member, its task (None: it starts), the attempt."""
        self._save = ray.remote(_saved)
        self._saving: dict[Any, str] = {}
        """The machine, by reference: until it is done, what is saved is nowhere else, so nothing
        begins."""
        self._known: set[str] = set()
        """The machines on which something was, or is being, saved before the first task."""
        self._places: dict[int, Place] = {}

    def references(self) -> list[Any]:
        """What to wait for."""
        return [*self._under_way, *self._saving]

    def tend(self, most: int, machines: Iterable[str]) -> None:
        """Have as many processes as there are tasks, `most` at most; hand out, ask back. Before,
        have saved what the killed left on these machines."""
        while self.crew.members < min(most, len(self.crew)):
            member = next(self._numbers)
            self._actors[member] = self._process.remote()
            self._under_way[self._actors[member].start.remote()] = member, None, 0
            self.crew.hire(member)
        for machine in set(machines) - self._known:
            self._known.add(machine)
            self._salvage(machine, None)
        if self._saving:
            return
        for member, task in self.crew.handed_out():
            attempt = next(self._numbers)
            reference = self._actors[member].run.remote(task, attempt)
            self._under_way[reference] = member, task, attempt
        for member, key in self.crew.asked_back():
            self._want_back(member, key)

    def _want_back(self, wanted: int, key: Key) -> None:
        for member, task, attempt in self._under_way.values():
            if member == wanted and task and task.key == key:
                self._actors[member].want_back.remote(attempt)

    def settle(self, reference: Any, machines: Iterable[str]) -> tuple[Task, Report] | None:
        """Hear what became of a reference; a task that is done, if it is that. `machines`: those
        that are there. Raises `TaskFailed` where its function raised, or too many processes were
        lost with it."""
        if reference in self._saving:
            self._settle_saving(reference, machines)
            return None
        member, task, _ = self._under_way.pop(reference)
        try:
            report = ray.get(reference)
        except RayTaskError as error:
            assert task, "nothing of ours runs while a process starts"
            raise TaskFailed(*task.key, error.cause or error) from error
        except RayError as error:
            self._lost(member, error)
            return None
        if task is None:
            self._places[member] = report
            self.crew.started(member)
        elif report is None:
            self.crew.given_back(member, task.key)
        else:
            self.crew.done(member, task.key)
            return task, report
        return None

    def _salvage(self, machine: str, killed: int | None) -> None:
        if self.step.salvage:
            there = NodeAffinitySchedulingStrategy(machine, soft=False)
            options = self._save.options(num_cpus=0, scheduling_strategy=there)
            self._saving[options.remote(self.step.salvage, killed)] = machine

    def _settle_saving(self, reference: Any, machines: Iterable[str]) -> None:
        machine = self._saving.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            raise TaskFailed(*self.crew.first(), error.cause or error) from error
        except RayError as error:
            if machine in machines:
                raise TaskFailed(*self.crew.first(), error) from error
            # with its machine goes what lies there: as much as a segment's age allows
            _log.warning("a machine is lost, with what was not saved there: %s", error)

    def _lost(self, member: int, error: RayError) -> None:
        ray.kill(self._actors.pop(member))  # one that cannot be reached may go on, else
        self._under_way = {
            reference: entry for reference, entry in self._under_way.items() if entry[0] != member
        }
        if place := self._places.pop(member, None):
            self._salvage(*place)
        for task in self.crew.died(member):
            raise TaskFailed(*task.key, error) from error

    def end(self, grace_s: float = 0.0) -> None:
        """End the processes; before, give their tasks so many seconds to stop at a whole place."""
        try:
            for member, task, attempt in self._under_way.values():
                if task:
                    self._actors[member].want_back.remote(attempt)
            left = [reference for reference, entry in self._under_way.items() if entry[1]]
            if left:
                ray.wait(left, num_returns=len(left), timeout=grace_s)
        finally:
            for actor in self._actors.values():
                with contextlib.suppress(RayError):
                    ray.kill(actor)
            self._actors.clear()
            self._under_way.clear()
            self._saving.clear()


def _kind(task: Task) -> Kind:
    """Tasks of one kind share processes: all steps of a stage that need the same."""
    step = task.step
    return task.stage.makes, step.together, step.cpus, step.memory_gb


class Cluster:
    """An executor on the Ray that is connected."""

    def __init__(self) -> None:
        self._tasks: dict[Any, Task] = {}
        self._shared: dict[Kind, Processes] = {}
        self._run = ray.remote(shard.run)
        self._look()

    def _look(self) -> None:
        """What machines there are now: a cluster grows with what waits."""
        found = ray.nodes()  # type: ignore[no-untyped-call]
        self._machines = [node["NodeID"] for node in found if node["Alive"]]
        self._nodes = [node["Resources"] for node in found if node["Alive"]]
        self.capacity = 4 * int(sum(node.get("CPU", 0) for node in self._nodes)) + 4

    def free(self, task: Task) -> bool:
        """Whether there is room for a task of this kind."""
        if task.step.together == 1:
            return len(self._tasks) < self.capacity
        shared = self._shared.get(_kind(task))
        room = room_for(task.step, self._nodes) * task.step.together
        return not shared or len(shared.crew) < room

    def submit(self, task: Task) -> None:
        """Send a task, with what it needs."""
        if task.step.together > 1:
            if _kind(task) not in self._shared:
                memory = memory_of(task.step, self._nodes)
                self._shared[_kind(task)] = Processes(task.stage.makes, task.step, memory)
            self._shared[_kind(task)].crew.take(task)
            return
        options = self._run.options(
            name=f"{task.stage.makes}.{task.phase}.{task.index}",
            num_cpus=task.step.cpus,
            memory=memory_of(task.step, self._nodes),
            max_retries=RETRIES,
            retry_exceptions=False,
        )
        self._tasks[options.remote(task)] = task

    def wait(self, limit_s: float | None = None) -> tuple[Task, Report] | None:
        """The next task that is done; None where there was no news for so many seconds."""
        while True:
            self._tend()
            shared = {one: every for every in self._shared.values() for one in every.references()}
            news, _ = ray.wait([*self._tasks, *shared], num_returns=1, timeout=limit_s)
            self._look()
            if not news:
                return None
            (reference,) = news
            if reference in self._tasks:
                return self._done(reference)
            if done := shared[reference].settle(reference, self._machines):
                return done

    def _tend(self) -> None:
        """Processes whose tasks are all done, with no others come in their place, end."""
        for kind in [kind for kind, shared in self._shared.items() if not len(shared.crew)]:
            self._shared.pop(kind).end()
        for shared in self._shared.values():
            shared.tend(room_for(shared.step, self._nodes), self._machines)

    def _done(self, reference: Any) -> tuple[Task, Report]:
        task = self._tasks.pop(reference)
        try:
            return task, ray.get(reference)
        except RayTaskError as error:
            raise TaskFailed(*task.key, error.cause or error) from error
        except RayError as error:
            raise TaskFailed(*task.key, error) from error

    def cancel(self) -> None:
        """End what is still under way: a joined cluster would go on with it."""
        for reference in self._tasks:
            with contextlib.suppress(RayError):
                ray.cancel(reference, force=True)
        for shared in self._shared.values():
            shared.end(GRACE_S)
        self._shared.clear()


@contextmanager
def executor(address: str | None, cpus: int) -> Iterator[Cluster]:
    """An executor for the length of the block; what is unfinished at its end is cancelled."""
    with connected(address, cpus):
        cluster = Cluster()
        try:
            yield cluster
        finally:
            cluster.cancel()
