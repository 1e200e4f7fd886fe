"""Hosts that fail, and hosts that take too long: left alone for longer, and dropped at last."""

import math

import pytest

from crawl.frontier import Ask, Counts, Done, Drop, Frontier, Wait

from .turns import after_waiting, asked, frontier


def test_failures_back_off_twice_as_long_each_and_success_forgets_them() -> None:
    turns = frontier()
    turns.add("a", list("123456"))
    moments = []
    now = 0.0
    for failed in (True, True, False, True, False, False):
        _, now = asked(turns, now, failed=failed)
        moments.append(now)
    assert moments == [0.0, 5.0, 15.0, 16.0, 21.0, 22.0]


@pytest.mark.parametrize(
    ("retry_after_s", "until"), [(None, 5.0), (2.0, 5.0), (30.0, 30.0), (math.inf, 60.0)]
)
def test_a_retry_after_is_waited_for_within_its_bound(
    retry_after_s: float | None, until: float
) -> None:
    turns = frontier(max_retry_after_s=60.0)
    turns.add("a", ["1", "2"])
    turns.next(0.0)
    turns.ended("a", 0.0, failed=True, retry_after_s=retry_after_s)
    assert turns.next(0.0) == Wait(until)
    assert turns.next(until) == Ask("a", "2")


def lost_after(failures: int) -> Frontier[str]:
    """A frontier that has lost `a`, of which three jobs are left."""
    turns = frontier(max_failures=failures)
    turns.add("a", list("123456789")[: failures + 3])
    for _ in range(failures):
        assert not turns.lost("a")
        asked(turns, 0.0, failed=True)
    assert turns.lost("a")
    return turns


def test_a_host_that_only_fails_is_lost_and_what_is_left_of_it_comes_at_once() -> None:
    turns = lost_after(2)
    assert turns.next(0.0) == Drop("a", "3")
    assert turns.drain("a") == ["4", "5"]
    assert turns.next(0.0) == Done()


def test_a_lost_host_stays_lost_for_whatever_leads_there() -> None:
    turns = lost_after(1)
    assert turns.drain("a") == ["2", "3", "4"]
    turns.hold("a", 9.0)
    turns.slow("a", 9.0)
    turns.add("a", ["5", "6"])
    turns.again("a", ["hop"])
    assert [turns.next(0.0) for _ in range(4)] == [
        *(Drop("a", job) for job in ("hop", "5", "6")),
        Done(),
    ]
    turns.add("a", ["7"])
    assert turns.left("a") == 1
    assert turns.counts() == Counts(ready=0, waiting=0, in_flight=0, lost=1, jobs=1)
    assert (turns.drain("a"), turns.next(1e9)) == (["7"], Done())


def test_a_host_is_lost_after_a_bounded_time() -> None:
    turns = frontier(max_delay_s=60.0, max_failures=10)
    turns.add("a", [str(n) for n in range(10_000)])
    now, failures, dropped = 0.0, 0, 0
    while not isinstance((turn := after_waiting(turns, now))[0], Done):
        step, now = turn
        dropped += isinstance(step, Drop)
        if isinstance(step, Ask):
            failures += 1
            turns.ended("a", now, failed=True)
    assert (failures, dropped) == (10, 9_990)
    assert now == 5 + 10 + 20 + 40 + 5 * 60  # the ten thousand others wait for nothing


def test_a_host_that_answers_between_failures_is_not_lost() -> None:
    turns = frontier(max_failures=3)
    turns.add("a", [str(n) for n in range(40)])
    now = 0.0
    for n in range(40):
        _, now = asked(turns, now, failed=n % 3 != 2)
        assert not turns.lost("a")


def test_no_number_of_failures_overflows() -> None:
    turns = frontier(max_delay_s=7.0, max_failures=10**9)
    turns.add("a", [str(n) for n in range(3000)])
    now = 0.0
    for _ in range(2000):
        _, now = asked(turns, now, failed=True)
    assert turns.next(now) == Wait(now + 7.0)


def test_a_host_has_its_time_from_its_first_request_on() -> None:
    turns = frontier(max_host_s=12.0, min_delay_s=4.0)
    turns.add("a", list("123456"), not_before=100.0)
    moments = [asked(turns, 0.0)[1] for _ in range(3)]
    assert moments == [100.0, 104.0, 108.0]
    assert turns.next(111.9) == Wait(112.0)
    assert after_waiting(turns, 108.0) == (Drop("a", "4"), 112.0)
    assert not turns.lost("a")
    assert turns.drain("a") == ["5", "6"]
    turns.again("a", ["hop"])
    assert [turns.next(112.0), turns.next(112.0)] == [Drop("a", "hop"), Done()]


def test_a_turn_that_was_not_used_begins_no_time() -> None:
    turns = frontier(max_host_s=10.0)
    turns.add("a", ["1", "2"])
    turns.next(0.0)
    turns.unused("a")
    assert turns.next(50.0) == Ask("a", "2")


def test_the_time_of_a_host_goes_on_while_nothing_of_it_is_left() -> None:
    turns = frontier(max_host_s=10.0, max_delay_s=2.0)
    turns.add("a", ["1"])
    asked(turns, 0.0)
    for now in (1.0, 5.0, 9.0):
        turns.hold("b", now)
        assert turns.next(now) == Done()
    turns.again("a", ["hop"])
    assert turns.next(11.0) == Drop("a", "hop")
