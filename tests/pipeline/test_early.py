"""What is done for a stage before its inputs are whole: where there is room, each item once, and
never needed."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pipeline import cluster, early, manifest, rebuild, state
from pipeline.early import ASK_S, Early
from pipeline.failures import TaskFailed
from pipeline.local import Local
from pipeline.stage import Ahead, Item, Stage, Step
from tests.pipeline import errands
from tests.pipeline.errands import SHARDS, read_lines


def make(plan, root: Path, executor=None) -> str:
    """The root hash."""
    rebuild.rebuild(plan, root, SHARDS, executor or Local(), lambda *_: None)
    states = state.inspect(plan, root, SHARDS)
    assert {entry.status for entry in states.values()} == {"whole"}
    return manifest.root_hash({n: s.dataset.manifest.set_hash for n, s in states.items()})


def without(folder: Path) -> tuple[Stage, ...]:
    """The same with nothing done ahead."""
    return *errands.plan(folder), replace(errands.after(folder), ahead=None)


WHERE = ["local", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.mark.parametrize("where", WHERE)
def test_it_is_done_while_what_is_read_is_under_way(tmp_path: Path, monkeypatch, where: str):
    monkeypatch.setattr(early, "ASK_S", 0.01)
    told = tmp_path / "told"
    plan = *errands.plan(told, together=2, trouble=errands.until_foreseen), errands.after(told)
    expected = make(without(tmp_path / "other"), tmp_path / "undisturbed")
    if where == "local":
        assert make(plan, tmp_path / "run") == expected
    else:
        with cluster.executor(None, 2) as executor:
            assert make(plan, tmp_path / "run", executor) == expected
    done = read_lines(told / "ahead.log")
    assert 3 <= len(done) == len(set(done))


def test_where_all_that_is_read_is_whole_nothing_is_asked_for(tmp_path: Path):
    told = tmp_path / "told"
    plan = *errands.plan(told), errands.after(told)
    make(plan[:2], tmp_path / "run")
    make(plan, tmp_path / "run")
    assert not read_lines(told / "asked.log")


def test_its_failure_is_one_of_the_run(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(early, "ASK_S", 0.01)
    told = tmp_path / "told"
    trouble = errands.until_foreseen
    failing = errands.after(told, errands.foresee_nothing_good)
    plan = *errands.plan(told, together=2, trouble=trouble), failing
    with pytest.raises(TaskFailed, match=r"after, ahead, \w+\.0, task 0: \w+\.0 is not good"):
        make(plan, tmp_path / "run")


def test_it_changes_no_fingerprint(tmp_path: Path):
    found = [
        state.inspect(plan, tmp_path, SHARDS)["after"].dataset.fingerprint
        for plan in (
            without(tmp_path / "told"),
            (*errands.plan(tmp_path / "told"), errands.after(tmp_path / "told")),
        )
    ]
    assert found[0] == found[1]


def ready(items: list[str]) -> list[Item]:
    return [Item(item, item) for item in items]


def stages(tmp_path: Path, items: list[str], forget=None):
    ahead = Ahead(ready=partial(ready, items), step=Step(run=print, schema=None), forget=forget)
    plan = *errands.plan(tmp_path), replace(errands.after(tmp_path), ahead=ahead)
    return state.inspect(plan, tmp_path / "run", SHARDS)


def drained(one: Early, free=lambda _: True) -> list[str]:
    found = []
    while task := one.next(lambda _: True, free):
        assert one.finished(task.key) and not one.finished(task.key)
        found.append(task.step.over[0].of)
    return found


def test_each_item_is_done_once_and_new_ones_are_asked_for_now_and_then(tmp_path: Path):
    items, now = ["a", "b"], 0.0
    one = Early(stages(tmp_path, items), lambda: now)
    assert drained(one) == ["a", "b"]
    items.append("c")
    assert drained(one) == []
    now += ASK_S
    assert drained(one) == ["c"]
    now += ASK_S
    assert drained(one) == []


def test_what_was_done_before_a_kill_is_not_done_again(tmp_path: Path):
    states = stages(tmp_path, ["a", "b"])
    one = Early(states)
    task = one.next(lambda _: True, lambda _: True)
    assert task and bool(one)
    run_here(task)
    assert drained(Early(states)) == ["b"]


def run_here(task) -> None:
    executor = Local()
    executor.submit(task)
    executor.wait()


def test_it_takes_only_room_that_is_left(tmp_path: Path):
    one = Early(stages(tmp_path, ["a", "b"]))
    assert drained(one, lambda _: False) == []
    assert drained(one) == ["a", "b"]


def test_none_is_begun_nor_waited_for_once_nothing_waits(tmp_path: Path):
    one = Early(stages(tmp_path, ["a", "b"]))
    assert one.pause(lambda _: True) == ASK_S
    assert one.next(lambda _: False, lambda _: True) is None
    assert one.pause(lambda _: False) is None


def test_what_it_left_is_forgotten_once_the_stage_is_whole_and_none_is_under_way(tmp_path: Path):
    forgotten = []
    states = stages(tmp_path, ["a", "b"], lambda: forgotten.append("after"))
    one = Early(states)
    tasks = [one.next(lambda _: True, lambda _: True) for _ in "ab"]
    assert one.finished(tasks[0].key)
    one.whole(states["visits"])
    one.whole(states["after"])
    assert not forgotten, "b still leaves something"
    assert one.finished(tasks[1].key) and forgotten == ["after"]
    Early(states).whole(states["after"])
    assert forgotten == ["after"] * 2, "what a run that was killed left"


@pytest.mark.parametrize("again", [False, True])
def test_a_whole_run_has_forgotten_it(tmp_path: Path, again: bool):
    told = tmp_path / "told"
    after = errands.after(told)
    left = partial((tmp_path / "left").unlink, missing_ok=True)
    plan = *errands.plan(told), replace(after, ahead=replace(after.ahead, forget=left))
    if again:
        make(without(told), tmp_path / "run")
    (tmp_path / "left").touch()
    make(plan, tmp_path / "run")
    assert not (tmp_path / "left").exists()


def test_rows_that_nobody_would_find_are_refused(tmp_path: Path):
    step = Step(run=print, schema=errands.VISITS)
    with pytest.raises(ValueError, match="after: what is done ahead leaves no rows"):
        replace(errands.after(tmp_path), ahead=Ahead(ready=list, step=step))
