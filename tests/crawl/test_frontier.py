"""Whose turn it is, with a clock turned by hand."""

import tracemalloc

import pytest

from crawl.frontier import Ask, Counts, Done, Frontier, Wait
from crawl.pace import Pace

from .turns import asked, frontier


def test_nothing_to_do_is_done() -> None:
    assert frontier().next(0.0) == Done()


def test_a_host_is_asked_one_at_a_time_and_after_its_delay() -> None:
    turns = frontier()
    turns.add("a", ["1", "2"])
    assert turns.next(10.0) == Ask("a", "1")
    assert turns.next(10.0) == Wait(None)
    turns.ended("a", 10.5)
    assert turns.next(10.5) == Wait(11.5)
    assert turns.next(11.5) == Ask("a", "2")
    turns.ended("a", 15.0)
    assert turns.next(15.0) == Done()


def test_no_more_in_flight_than_the_limit() -> None:
    turns = frontier(limit=2)
    for host in "abc":
        turns.add(host, ["x"])
    assert isinstance(turns.next(0.0), Ask) and isinstance(turns.next(0.0), Ask)
    assert turns.next(0.0) == Wait(None)
    turns.ended("a", 0.1)
    assert isinstance(turns.next(0.1), Ask)


def test_the_end_of_a_turn_is_told_once() -> None:
    turns = frontier()
    turns.add("a", ["1", "2"])
    turns.next(0.0)
    turns.ended("a", 0.0)
    for tell in (lambda: turns.ended("a", 0.0), lambda: turns.unused("b")):
        with pytest.raises(ValueError, match=r"is not being asked"):
            tell()


def test_a_crawl_delay_slows_a_host_down_and_never_speeds_it_up() -> None:
    turns = frontier()
    turns.add("a", ["1", "2", "3"])
    turns.next(0.0)
    turns.slow("a", 30.0)
    turns.slow("a", 0.1)
    turns.ended("a", 0.5)
    assert turns.next(1.0) == Wait(30.5)
    assert turns.next(30.5) == Ask("a", "2")


def test_a_host_slowed_down_while_it_waits_waits_longer() -> None:
    turns = frontier()
    turns.add("a", ["1", "2"])
    turns.next(0.0)
    turns.ended("a", 0.0)
    turns.slow("a", 9.0)
    assert turns.next(2.0) == Wait(9.0)


def test_a_host_slowed_down_or_held_while_it_is_ready_waits_after_all() -> None:
    turns = frontier(limit=1)
    turns.add("long", list("12345"))
    turns.add("a", ["1", "2"])
    turns.add("b", ["1", "2"])
    for host in "ab":
        turns.hold(host, 0.0)
    turns.next(0.0)
    turns.slow("a", 9.0)
    turns.hold("b", 4.0)
    turns.ended("long", 0.0)
    assert turns.next(0.5) == Ask("a", "1")  # slowed down, but never asked yet
    turns.ended("a", 0.5)
    assert turns.next(0.5) == Wait(1.0)
    turns.drain("long")
    assert turns.next(2.0) == Wait(4.0)
    assert turns.next(4.0) == Ask("b", "1")


def test_a_crawl_delay_counts_up_to_the_bound() -> None:
    turns = frontier(max_delay_s=20.0)
    turns.add("a", ["1", "2"])
    turns.slow("a", 86400.0)
    assert [asked(turns, 0.0), asked(turns, 0.0)] == [("1", 0.0), ("2", 20.0)]


def test_a_host_that_answers_slowly_is_asked_slowly_while_it_does() -> None:
    turns = frontier(latency_factor=2.0, max_delay_s=20.0)
    turns.add("a", list("12345"))
    turns.slow("a", 3.0)
    moments = []
    now = 0.0
    for latency_s in (0.1, 4.0, 30.0, 0.1, 0.1):
        _, now = asked(turns, now, latency_s=latency_s)
        moments.append(now)
    assert moments == [0.0, 3.0, 11.0, 31.0, 34.0]


def test_a_latency_that_was_not_measured_changes_nothing() -> None:
    turns = frontier(latency_factor=2.0)
    turns.add("a", list("123"))
    asked(turns, 0.0, latency_s=4.0)
    assert [asked(turns, 0.0), asked(turns, 8.0)] == [("2", 8.0), ("3", 16.0)]


def test_what_an_earlier_run_left_is_waited_for() -> None:
    turns = frontier()
    turns.add("a", ["1"], not_before=7.0)
    turns.add("b", ["1", "2"], not_before=3.0)
    assert (turns.counts().ready, turns.counts().waiting) == (0, 2)
    assert turns.next(0.0) == Wait(3.0)
    assert turns.next(7.0) == Ask("b", "1")
    assert turns.next(7.0) == Ask("a", "1")


def test_a_host_on_hold_is_not_asked() -> None:
    turns = frontier()
    turns.add("a", ["1", "2", "3"])
    turns.hold("a", 5.0)
    turns.hold("a", 2.0)
    assert turns.next(4.9) == Wait(5.0)
    assert turns.next(5.0) == Ask("a", "1")
    turns.hold("a", 50.0)
    turns.ended("a", 6.0)
    assert turns.next(7.0) == Wait(50.0)
    turns.hold("b", 60.0)
    turns.add("b", ["1"])
    assert turns.next(55.0) == Ask("a", "2")
    assert turns.next(59.0) == Wait(60.0)


def test_what_was_begun_comes_before_the_rest() -> None:
    turns = frontier()
    turns.add("a", ["1", "2"])
    turns.next(0.0)
    turns.again("a", ["hop", "then"])
    turns.ended("a", 0.0)
    assert [asked(turns, now)[0] for now in (1.0, 2.0, 3.0)] == ["hop", "then", "2"]


def test_what_comes_back_while_its_host_is_asked_waits_like_all_others() -> None:
    turns = frontier()
    turns.add("a", ["1"])
    turns.next(0.0)
    turns.again("a", ["hop"])
    turns.add("a", ["2"])
    assert turns.next(9.0) == Wait(None)
    turns.ended("a", 10.0)
    assert turns.next(10.0) == Wait(11.0)
    assert turns.next(11.0) == Ask("a", "hop")


def test_a_host_that_had_ended_still_waits_when_a_redirect_leads_to_it() -> None:
    turns = frontier(limit=2)
    turns.add("a", ["1"])
    assert asked(turns, 0.0) == ("1", 0.0)
    turns.add("b", list("1234"))
    assert asked(turns, 0.5) == ("1", 0.5)
    turns.again("a", ["hop"])
    assert turns.next(0.9) == Wait(1.0)
    assert turns.next(1.0) == Ask("a", "hop")


def test_a_crawl_delay_that_is_learnt_late_counts_from_the_last_request() -> None:
    turns = frontier(max_delay_s=20.0)
    turns.add("a", ["1"])
    assert asked(turns, 0.0) == ("1", 0.0)
    assert turns.next(5.0) == Done()
    turns.slow("a", 1e6)
    turns.add("a", ["2"])
    assert turns.next(6.0) == Wait(20.0)
    assert asked(turns, 20.0) == ("2", 20.0)
    turns.add("b", ["1"])
    assert asked(turns, 90.0) == ("1", 90.0)
    assert turns.next(1000.0) == Done()
    turns.add("a", ["3", "4"])
    assert [asked(turns, 1000.0), asked(turns, 1000.0)] == [("3", 1000.0), ("4", 1020.0)]


def test_a_crawl_delay_and_failures_outlast_the_queue() -> None:
    turns = frontier(max_failures=3, max_delay_s=30.0)
    turns.add("slow", ["1"])
    turns.slow("slow", 30.0)
    turns.add("ill", ["1", "2"])
    turns.next(0.0)
    turns.next(0.0)
    turns.ended("slow", 0.0)
    turns.ended("ill", 0.0, failed=True)
    assert asked(turns, 0.0, failed=True) == ("2", 5.0)
    for now in (50.0, 100.0, 150.0):
        assert turns.next(now) == Done()
    turns.add("slow", ["2", "3"])
    assert asked(turns, 150.0) == ("2", 150.0)
    turns.add("ill", ["3"])
    assert asked(turns, 150.0, failed=True) == ("3", 150.0)
    assert turns.lost("ill")
    assert asked(turns, 150.0) == ("3", 180.0)


def test_what_is_remembered_of_a_host_is_of_its_last_request() -> None:
    turns = frontier(max_delay_s=20.0)
    for now in (0.0, 15.0):
        turns.add("a", ["1"])
        assert asked(turns, now) == ("1", now)
        assert turns.next(now + 2.0) == Done()
    turns.add("b", ["1"])
    assert asked(turns, 22.0) == ("1", 22.0)
    assert turns.next(24.0) == Done()
    turns.slow("a", 20.0)
    turns.add("a", ["2"])
    assert turns.next(25.0) == Wait(35.0)


def test_a_hold_outlasts_the_queue() -> None:
    turns = frontier(max_delay_s=20.0)
    turns.add("a", ["1"])
    assert asked(turns, 0.0) == ("1", 0.0)
    turns.hold("a", 500.0)
    for now in (5.0, 50.0, 100.0):
        turns.add("b", ["1"])
        assert asked(turns, now) == ("1", now)
    turns.add("a", ["2"])
    assert turns.next(101.0) == Wait(500.0)


def test_an_unused_turn_costs_nothing() -> None:
    turns = frontier()
    turns.add("a", ["1", "2"])
    turns.next(0.0)
    turns.unused("a")
    assert turns.next(0.0) == Ask("a", "2")


def test_a_host_that_is_given_away_leaves_nothing_and_takes_its_delay_along() -> None:
    giver, taker = frontier(), frontier()
    for host in ("a", "b"):
        giver.add(host, ["1", "2", "3"])
    giver.add("c", ["1"])
    assert giver.next(100.0) == Ask("a", "1")
    giver.again("a", ["retry"])
    giver.ended("a", 100.25)
    assert [giver.left(host) for host in "abc"] == [3, 3, 1]
    taker.add("a", giver.drain("a"), not_before=5.5)
    taker.add("b", giver.drain("b"), not_before=5.0)
    assert [giver.left(host) for host in "abc"] == [0, 0, 1]
    assert giver.counts().jobs == 1
    assert giver.next(200.0) == Ask("c", "1")
    assert giver.next(200.0) == Wait(None)
    assert taker.next(5.0) == Ask("b", "1")
    assert taker.next(5.0) == Wait(5.5)
    assert taker.next(5.5) == Ask("a", "retry")
    assert taker.drain("a") == ["2", "3"]


def test_a_host_that_is_denied_while_it_is_asked_ends_with_that() -> None:
    turns = frontier()
    turns.add("a", ["1", "2"])
    turns.next(0.0)
    assert turns.drain("a") == ["2"]
    assert turns.drain("a") == [] == turns.drain("unknown")
    assert turns.next(0.0) == Wait(None)
    turns.ended("a", 0.5)
    assert turns.next(0.5) == Done()


def test_how_it_stands() -> None:
    turns = frontier(limit=2)
    for host, jobs in {"a": "12345", "b": "123", "c": "12", "d": "1"}.items():
        turns.add(host, jobs)
    assert turns.counts() == Counts(ready=4, waiting=0, in_flight=0, lost=0, jobs=11)
    assert turns.bound_s() == 5.0
    turns.next(0.0), turns.next(0.0)
    assert turns.counts() == Counts(ready=2, waiting=0, in_flight=2, lost=0, jobs=9)
    turns.ended("a", 0.0, latency_s=1.0)
    assert turns.counts() == Counts(ready=2, waiting=1, in_flight=1, lost=0, jobs=9)
    assert turns.bound_s() == 4.0
    turns.slow("b", 30.0)
    assert turns.bound_s() == 60.0
    turns.slow("c", 40.0)
    assert turns.bound_s() == 80.0
    for host in "abc":
        turns.drain(host)
    assert turns.counts() == Counts(ready=1, waiting=0, in_flight=1, lost=0, jobs=1)
    assert turns.bound_s() == 1.0


def test_hosts_that_are_done_or_given_away_are_forgotten() -> None:
    def held(hosts: int) -> int:
        tracemalloc.start()
        turns: Frontier[int] = Frontier(Pace(min_delay_s=1.0, max_delay_s=9.0), 4)
        for now in range(hosts):
            turns.add(f"given-{now}", range(9))
            assert turns.drain(f"given-{now}") == [*range(9)]
            turns.add(f"host-{now}", range(1))
            assert turns.next(now) == Ask(f"host-{now}", 0)
            turns.ended(f"host-{now}", now)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size

    held(1)
    assert held(3000) < 2 * held(30)
