"""The order of tasks: nothing runs before what it reads, everything runs once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import shard, state
from pipeline.schedule import Schedule, groups_of, needs, tasks
from pipeline.shard import Task
from pipeline.stage import Stage, Step
from pipeline.store import Dataset
from tests.pipeline import toy


def states(tmp_path: Path, shards: int):
    for number in range(3):
        (tmp_path / f"t{number}").write_text(f"word{number}")
    plan = toy.plan(sorted(tmp_path.glob("t*")), tmp_path / "run", {"least": 1})
    return state.inspect(plan, tmp_path / "run", shards)


@given(st.integers(1, 6), st.randoms(use_true_random=False))
def test_every_task_runs_once_and_after_what_it_reads(tmp_path_factory, shards, random):
    schedule = Schedule(states(tmp_path_factory.mktemp("s"), shards))
    total, running, finished = len(schedule), [], []
    while schedule:
        while task := schedule.next():
            for group in needs(task):
                members = {k for k in all_keys(shards) if group in groups_of(k)}
                assert members <= set(finished), (task.key, group)
            running.append(task.key)
        key = running.pop(random.randrange(len(running)))
        schedule.finished(key)
        finished.append(key)
    assert len(finished) == len(set(finished)) == total
    assert set(finished) == all_keys(shards)


def all_keys(shards: int) -> set:
    keys = {("words", "main", i) for i in range(3)} | {("losers", "main", 0)}
    for name, phase in (
        ("counts", "main"),
        ("pairs", "before/0"),
        ("pairs", "main"),
        ("verdicts", "main"),
    ):
        keys |= {(name, phase, i) for i in range(shards)}
    return keys


def test_a_shard_goes_on_as_soon_as_its_own_input_stands(tmp_path: Path):
    schedule = Schedule(states(tmp_path, 4))
    for _ in range(3):
        task = schedule.next()
        assert task and task.stage.makes == "words"
        schedule.finished(task.key)
    first = schedule.next()
    assert first and first.stage.makes == "counts"
    schedule.finished(first.key)
    after = schedule.next()
    assert after and after.key == ("pairs", "before/0", first.index)


def test_no_task_twice(tmp_path: Path):
    schedule = Schedule(states(tmp_path, 1))
    task = schedule.next()
    assert task
    schedule.finished(task.key)
    with pytest.raises(KeyError):
        schedule.finished(task.key)


def test_what_is_looked_up_is_waited_for_from_end_to_end():
    lookup = Step(run=print, schema=toy.PAIRS, each=("counts",), lookup=("losers",))
    stage = Stage(makes="last", version=1, main=lookup)
    inputs = {
        name: Dataset(name, "f", Path(name), 4, scattered=name == "losers")
        for name in ("counts", "losers")
    }
    task = Task(stage, "main", 2, Dataset("last", "f", Path("last"), 4), inputs)
    assert list(needs(task)) == [("counts", "main", 2), ("losers", "main", None)]


def test_a_range_of_scattered_rows_waits_for_all_that_scatter(tmp_path: Path):
    made = states(tmp_path, 2)
    inputs = {"words": made["words"].dataset}
    task = Task(made["counts"].stage, "main", 1, made["counts"].dataset, inputs)
    assert list(needs(task)) == [("words", "main", None)]


def test_a_task_that_is_done_is_not_run_again(tmp_path: Path):
    words = states(tmp_path, 2)["words"]
    first = next(task for task in tasks(states(tmp_path, 2)) if task.key == ("words", "main", 0))
    shard.run(first)
    left = [task.key for task in tasks(states(tmp_path, 2)) if task.stage.makes == "words"]
    assert left == [("words", "main", index) for index in range(1, words.tasks)]


def test_where_there_is_no_room_for_the_latest_stage_an_earlier_one_goes_on(tmp_path: Path):
    schedule = Schedule(states(tmp_path, 2))
    for _ in range(3):
        task = schedule.next()
        assert task
        schedule.finished(task.key)
    first = schedule.next()
    assert first and first.stage.makes == "counts"
    schedule.finished(first.key)
    asked: list[str] = []

    def free(task: Task) -> bool:
        asked.append(task.stage.makes)
        return task.stage.makes != "pairs"

    other = schedule.next(free)
    assert other and other.stage.makes == "counts"
    assert asked == ["pairs", "counts"]
    assert schedule.next(free) is None
    after = schedule.next()
    assert after and after.stage.makes == "pairs"


def test_a_dataset_waits_until_all_that_it_reads_stands(tmp_path: Path):
    schedule, waited = Schedule(states(tmp_path, 2)), []
    while schedule:
        waited.append({name for name in ("words", "counts", "losers") if schedule.waits(name)})
        task = schedule.next()
        assert task
        schedule.finished(task.key)
    assert waited[0] == {"counts", "losers"} and not waited[-1]
    assert waited[2] == {"counts", "losers"}  # two of three words' files are read
    assert waited[3] == {"losers"}


def test_what_must_be_whole_before_is_waited_for_although_only_a_part_of_it_is_read():
    step = Step(run=print, schema=toy.PAIRS, each=("counts",), after=("counts",))
    stage = Stage(makes="last", version=1, main=step)
    inputs = {"counts": Dataset("counts", "f", Path("counts"), 4)}
    task = Task(stage, "main", 2, Dataset("last", "f", Path("last"), 4), inputs)
    assert list(needs(task)) == [("counts", "main", 2), ("counts", "main", None)]
