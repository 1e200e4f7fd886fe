"""Steps of a stage before its main one: each whole before the next, rows handed on by key."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import manifest, rebuild, state
from pipeline.failures import TaskFailed
from pipeline.local import Local
from pipeline.manifest import Report
from pipeline.shard import Task
from pipeline.stage import Account, Item, Stage, Step
from tests.pipeline import errands


def make(plan, root: Path, shards: int = 4, executor=None, tell=lambda *_: None):
    rebuild.rebuild(plan, root, shards, executor or Local(), tell)
    return state.inspect(plan, root, shards)


def rows(states, name: str) -> list[dict]:
    return [row for batch in states[name].dataset.all() for row in batch.to_pylist()]


class Watching(Local):
    """Notes which tasks end, and dies before the one at `dies_at`."""

    def __init__(self, dies_at: int = -1) -> None:
        super().__init__()
        self.ran: list[tuple[str, str, int]] = []
        self.dies_at = dies_at

    def wait(self, limit_s: float | None = None) -> tuple[Task, Report] | None:
        if len(self.ran) == self.dies_at:
            raise SystemExit("killed")
        if done := super().wait(limit_s):
            self.ran.append(done[0].key)
        return done


def test_rows_go_from_step_to_step_by_their_key(tmp_path: Path):
    states = make(errands.plan(tmp_path / "told"), tmp_path / "run")
    assert {row["id"]: row["visits"] for row in rows(states, "visits")} == errands.wanted()
    logged = errands.read_lines(tmp_path / "told" / "visits.log")
    assert len(logged) == len(set(logged)) == sum(errands.wanted().values())


@pytest.mark.parametrize("shards", [1, 7])
def test_any_number_of_ranges_gives_the_same_root_hash(tmp_path: Path, shards: int):
    hashes = set()
    for name, number in (("one", 4), ("other", shards)):
        states = make(errands.plan(tmp_path / f"{name}-told"), tmp_path / name, number)
        hashes.add(root_hash(states))
    assert len(hashes) == 1


def root_hash(states) -> str:
    return manifest.root_hash({n: s.dataset.manifest.set_hash for n, s in states.items()})


def test_each_step_is_whole_before_the_next_begins(tmp_path: Path):
    executor = Watching()
    states = make(errands.plan(tmp_path / "told"), tmp_path / "run", executor=executor)
    phases = [phase for name, phase, _ in executor.ran if name == "visits"]
    assert phases == sorted(phases)  # "before/1" to "before/6", then "main"
    assert Counter(phases) == dict.fromkeys(
        ["before/1", "before/2", "before/4", "before/5", "before/6", "main"], 4
    )
    assert (states["visits"].done, states["visits"].tasks) == (24, 24)


def test_progress_counts_the_tasks_of_every_step(tmp_path: Path):
    told = []
    plan = errands.plan(tmp_path / "told")
    make(plan, tmp_path / "run", tell=lambda name, *counts: told.append((name, counts)))
    assert [counts for name, counts in told if name == "visits"] == [(n, 24) for n in range(25)]


@pytest.mark.parametrize("dies_at", [1, 4, 12, 17, 23])
def test_a_killed_run_goes_on_in_the_step_where_it_was(tmp_path: Path, dies_at: int):
    whole = Watching()
    undisturbed = make(errands.plan(tmp_path / "other"), tmp_path / "undisturbed", executor=whole)
    plan = errands.plan(tmp_path / "told")
    with pytest.raises(SystemExit):
        make(plan, tmp_path / "run", executor=Watching(dies_at))
    partial_ = state.inspect(plan, tmp_path / "run", 4)["visits"]
    assert partial_.done == dies_at - 1  # one task makes the walkers
    rest = Watching()
    states = make(plan, tmp_path / "run", executor=rest)
    assert root_hash(states) == root_hash(undisturbed)
    assert rest.ran == whole.ran[dies_at:]
    logged = errands.read_lines(tmp_path / "told" / "visits.log")
    assert len(logged) == len(set(logged))


ROWS = pa.schema([("key", pa.binary(4))])
KEYS = [b"\x00aaa", b"\x80aaa", b"\xf0aaa"]


def spread(_: int) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pylist([{"key": key} for key in KEYS], ROWS)


def take(handed: Iterable[pa.RecordBatch], *rest: object, folder: Path) -> None:
    found = sorted(key for batch in handed for key in batch["key"].to_pylist())
    of = [value for value in rest if isinstance(value, str)]
    errands.write_line(folder / "taken.log", repr((of, found)))


def reading(folder: Path, step: Step) -> Stage:
    first = Step(run=spread, schema=ROWS, scatter="key", over=(Item(0, "seed"),))
    main = Step(run=spread, schema=ROWS, over=(Item(0, "seed"),))
    return Stage(makes="taken", version=1, before=(first, step), main=main)


def test_a_shard_is_handed_its_range_and_any_other_task_all_of_them(tmp_path: Path):
    run, items = partial(take, folder=tmp_path), (Item("one", "one"), Item("two", "two"))
    for step, expected in (
        (Step(run=run, schema=None), [([], [key]) for key in KEYS] + [([], [])]),
        (Step(run=run, schema=None, gather=True), [([], KEYS)]),
        (Step(run=run, schema=None, over=items), [(["one"], KEYS), (["two"], KEYS)]),
    ):
        log = tmp_path / "taken.log"
        log.unlink(missing_ok=True)
        stage = reading(tmp_path, step)
        make([stage], tmp_path / f"run{len(expected)}")
        assert sorted(log.read_text().splitlines()) == sorted(map(repr, expected))


def unreadable(_: int, account: Account) -> None:
    account.left_out["torn"] += 2
    account.faults.append("a: torn")


def test_what_a_step_before_could_not_read_is_in_the_manifest(tmp_path: Path):
    before = Step(run=unreadable, schema=None, over=(Item(0, "a"),), accounts=True)
    main = Step(run=spread, schema=ROWS, over=(Item(0, "seed"),))
    stage = Stage(makes="read", version=1, before=(before,), main=main)
    told = make([stage], tmp_path)["read"].dataset.manifest
    assert (told.left_out, told.faults, told.rows) == ({"torn": 2}, ["a: torn"], 3)


def explode(*_: object) -> None:
    raise RuntimeError("a step exploded")


def test_a_failure_names_the_step(tmp_path: Path):
    stage = reading(tmp_path, Step(run=explode, schema=None))
    with pytest.raises(TaskFailed, match=r"^taken \(before/1\), task 0: a step exploded$"):
        make([stage], tmp_path)


def test_rows_that_nobody_could_find_are_refused():
    with pytest.raises(ValueError, match="taken: a step of `before` scatters its rows"):
        reading(Path(), Step(run=spread, schema=ROWS))


def test_what_one_leaf_and_a_chain_make_is_not_taken_over_as_the_leafs_own(tmp_path: Path):
    """The chain may have read anything."""
    ran = []
    for version_of_chain in ("one", "two"):
        before = Step(run=spread, schema=ROWS, scatter="key", over=(Item(0, "seed"),))
        main = Step(run=main_of, schema=ROWS, over=(Item("leaf", "leaf", content="c"),))
        stage = Stage(
            makes="made", version=1, before=(before,), main=main, leaves=("c", version_of_chain)
        )
        executor = Watching()
        make([stage], tmp_path, executor=executor)
        ran += executor.ran
    assert ran == [("made", "before/0", 0), ("made", "main", 0)] * 2


def main_of(handed: Iterable[pa.RecordBatch], _: str) -> Iterator[pa.RecordBatch]:
    yield from handed
