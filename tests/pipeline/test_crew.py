"""Which process holds which task: each task once, about the same number for each, none lost."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crew import RETRIES, WITHIN_S, Crew
from pipeline.shard import Key, Task
from pipeline.stage import Stage, Step
from pipeline.store import Dataset


def task(index: int) -> Task:
    stage = Stage(makes="pages", version=1, main=Step(run=print, schema=None, together=4))
    return Task(stage, "main", index, Dataset("pages", "f", Path("pages"), 8), {})


def crew_of(tasks: int, members: int, together: int = 100, clock=lambda: 0.0) -> Crew:
    crew = Crew(together, clock)
    for index in range(tasks):
        crew.take(task(index))
    for member in range(members):
        crew.hire(member)
        crew.started(member)
    return crew


def loads(crew: Crew, found) -> list[int]:
    """How many of these (member, task) each member holds."""
    counts = dict.fromkeys(range(crew.members), 0)
    for member, _ in found:
        counts[member] += 1
    return sorted(counts.values())


@pytest.mark.parametrize(
    "tasks, members, each", [(8, 2, [4, 4]), (7, 3, [2, 2, 3]), (1, 2, [0, 1])]
)
def test_each_is_handed_about_the_same_number(tasks: int, members: int, each: list[int]):
    crew = crew_of(tasks, members)
    assert loads(crew, crew.handed_out()) == each


def test_none_is_handed_more_than_run_together():
    crew = crew_of(8, 2, together=3)
    assert loads(crew, crew.handed_out()) == [3, 3]
    assert len(crew) == 8


def test_who_is_still_to_come_has_a_share():
    crew = crew_of(6, 1)
    crew.hire(1)
    assert loads(crew, crew.handed_out()) == [0, 3]
    crew.started(1)
    assert [member for member, _ in crew.handed_out()] == [1, 1, 1]


def test_who_never_comes_is_not_waited_for():
    crew = crew_of(6, 1)
    crew.hire(1)
    done = 0
    while found := list(crew.handed_out()):
        for member, one in found:
            crew.done(member, one.key)
            done += 1
    assert done == 6 and len(crew) == 0


def test_half_of_the_surplus_is_asked_back_for_one_that_idles_the_youngest_first():
    crew = crew_of(8, 2)
    held = {0: [], 1: []}
    for member, one in crew.handed_out():
        held[member].append(one.key)
    assert list(crew.asked_back()) == []
    for key in held[1]:
        crew.done(1, key)
    asked = list(crew.asked_back())
    assert asked == [(0, held[0][3]), (0, held[0][2])]
    assert list(crew.asked_back()) == []  # not twice
    for member, key in asked:
        crew.given_back(member, key)
    assert {(member, one.key) for member, one in crew.handed_out()} == {
        (1, held[0][2]),
        (1, held[0][3]),
    }
    assert list(crew.asked_back()) == []


def test_one_is_asked_back_even_where_all_but_one_hold_the_same():
    crew = crew_of(4, 2)
    list(crew.handed_out())
    crew.hire(2)
    crew.started(2)
    asked = list(crew.asked_back())
    assert len(asked) == 1
    crew.given_back(*asked[0])
    assert [member for member, _ in crew.handed_out()] == [2]
    assert list(crew.asked_back()) == []


def test_the_last_task_of_a_member_stays_with_it():
    crew = crew_of(1, 2)
    list(crew.handed_out())
    assert list(crew.asked_back()) == []


def test_the_tasks_of_the_dead_go_to_the_living_before_those_that_wait():
    crew = crew_of(5, 2, together=2)
    held = [one.key for member, one in crew.handed_out() if member == 0]
    assert crew.died(0) == []
    for key in crew.held():
        crew.done(1, key)
    assert [one.key for _, one in crew.handed_out()] == held


def test_a_task_with_which_too_many_processes_were_lost_is_told():
    now = 0.0
    crew = crew_of(2, 0, clock=lambda: now)
    for member in range(RETRIES + 1):
        crew.hire(member)
        crew.started(member)
        list(crew.handed_out())
        blamed = crew.died(member)
        assert [one.index for one in blamed] == ([0, 1] if member == RETRIES else [])


def test_a_task_outlives_any_number_of_machines_that_are_lost_now_and_then():
    now = 0.0
    crew = crew_of(1, 0, clock=lambda: now)
    for member in range(10 * RETRIES):
        crew.hire(member)
        crew.started(member)
        list(crew.handed_out())
        assert crew.died(member) == []
        now += WITHIN_S / 2


def test_processes_that_never_start_are_told_too():
    crew = crew_of(2, 0)
    for member in range(RETRIES + 1):
        crew.hire(member)
        blamed = crew.died(member)
    assert [one.index for one in blamed] == [0]


@given(st.integers(0, 1 << 30), st.integers(1, 12), st.integers(1, 4), st.integers(1, 5))
def test_whatever_happens_every_task_is_done_once_and_held_by_one(seed, tasks, most, together):
    """Members come, die and idle; tasks are done or given back, in any order. Nobody idles beside
    one that holds several of which none is asked back."""
    random = Random(seed)
    crew, number, deaths = crew_of(tasks, 0, together, clock=lambda: deaths * WITHIN_S), 0, 0
    starting: list[int] = []
    held: dict[int, list[Key]] = {}
    asked: dict[Key, int] = {}
    done: list[Key] = []

    def end(member: int, key: Key) -> None:
        held[member].remove(key)
        asked.pop(key, None)

    while len(crew):
        while crew.members < min(most, len(crew)):
            crew.hire(number := number + 1)
            starting.append(number)
        for member, one in crew.handed_out():
            assert all(one.key not in keys for keys in held.values())
            held[member].append(one.key)
        for member, key in crew.asked_back():
            assert key in held[member] and key not in asked
            asked[key] = member
        running = [(member, key) for member, keys in sorted(held.items()) for key in keys]
        several = any(len(keys) > 1 for keys in held.values())
        if len(running) == len(crew) and several and not all(held.values()):
            assert asked
        step = random.random()
        if starting and (step < 0.3 or not running):
            crew.started(starting[0])
            held[starting.pop(0)] = []
        elif running and step < 0.4:
            lost, _ = random.choice(running)
            deaths += 1
            assert crew.died(lost) == []
            for key in [*held[lost]]:
                end(lost, key)
            del held[lost]
        elif asked and step < 0.8:
            key, member = random.choice(sorted(asked.items()))
            end(member, key)
            crew.given_back(member, key)
        elif running:
            member, key = random.choice(running)
            end(member, key)
            crew.done(member, key)
            done.append(key)
    assert sorted(done) == [task(index).key for index in range(tasks)]
