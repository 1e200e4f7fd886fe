"""Whose turn it is, with a clock turned by hand."""

import itertools
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from crawl.frontier import Ask, Done, Frontier, Wait


def frontier(
    limit: int = 10, delay_s: float = 1.0, max_back_off_s: float = 100.0, patience: int = 1000
) -> Frontier[str]:
    return Frontier(
        delay_s=delay_s,
        back_off_s=5.0,
        max_back_off_s=max_back_off_s,
        patience=patience,
        limit=limit,
    )


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


def test_the_longest_host_goes_first() -> None:
    turns = frontier()
    turns.add("short", ["1"])
    turns.add("long", ["1", "2", "3"])
    turns.add("middle", ["1", "2"])
    asked = [turns.next(0.0) for _ in range(3)]
    assert [ask.host for ask in asked if isinstance(ask, Ask)] == ["long", "middle", "short"]


def test_no_more_in_flight_than_the_limit() -> None:
    turns = frontier(limit=2)
    for host in "abc":
        turns.add(host, ["x"])
    assert isinstance(turns.next(0.0), Ask) and isinstance(turns.next(0.0), Ask)
    assert turns.next(0.0) == Wait(None)
    turns.ended("a", 0.1)
    assert isinstance(turns.next(0.1), Ask)


def test_a_crawl_delay_slows_a_host_down_and_never_speeds_it_up() -> None:
    turns = frontier()
    turns.add("a", ["1", "2", "3"])
    turns.next(0.0)
    turns.slow("a", 30.0)
    turns.slow("a", 0.1)
    turns.ended("a", 0.5)
    assert turns.next(1.0) == Wait(30.5)
    assert turns.next(30.5) == Ask("a", "2")


def test_a_host_slowed_down_while_it_is_queued_still_waits() -> None:
    turns = frontier()
    turns.add("a", ["1", "2"])
    turns.next(0.0)
    turns.ended("a", 0.0)
    turns.slow("a", 9.0)
    assert turns.next(2.0) == Wait(9.0)


def test_failures_back_off_twice_as_long_each_and_success_forgets_them() -> None:
    turns = frontier()
    turns.add("a", ["1", "2", "3", "4"])
    turns.next(0.0)
    turns.ended("a", 0.0, failed=True)
    assert turns.next(0.0) == Wait(5.0)
    turns.next(5.0)
    turns.ended("a", 5.0, failed=True)
    assert turns.next(5.0) == Wait(15.0)
    turns.next(15.0)
    turns.ended("a", 15.0)
    assert turns.next(15.0) == Wait(16.0)


def test_a_host_that_only_fails_is_lost_after_a_bounded_time() -> None:
    turns = frontier(max_back_off_s=60.0, patience=10)
    turns.add("a", [str(n) for n in range(10_000)])
    now, asked, unused = 0.0, 0, 0
    while not isinstance(step := turns.next(now), Done):
        if isinstance(step, Wait):
            assert step.until is not None
            now = step.until
        elif turns.lost("a"):
            unused += 1
            turns.unused("a")
        else:
            asked += 1
            turns.ended("a", now, failed=True)
    assert (asked, unused) == (10, 9_990)
    assert now == 5 + 10 + 20 + 40 + 5 * 60 + 1  # the ten thousand others wait for nothing


def test_a_host_that_answers_between_failures_is_not_lost() -> None:
    turns = frontier(patience=3)
    turns.add("a", [str(n) for n in range(40)])
    now = 0.0
    for n in range(40):
        while isinstance(step := turns.next(now), Wait):
            assert step.until is not None
            now = step.until
        turns.ended("a", now, failed=n % 3 != 2)
        assert not turns.lost("a")


def test_no_number_of_failures_overflows() -> None:
    turns = frontier(max_back_off_s=7.0, patience=10**9)
    turns.add("a", [str(n) for n in range(3000)])
    now = 0.0
    for _ in range(2000):
        while isinstance(step := turns.next(now), Wait):
            assert step.until is not None
            now = step.until
        turns.ended("a", now, failed=True)
    assert turns.next(now) == Wait(now + 7.0)


def test_what_was_begun_comes_before_the_rest() -> None:
    turns = frontier()
    turns.add("a", ["1", "2"])
    turns.next(0.0)
    turns.again("a", ["hop", "then"])
    turns.ended("a", 0.0)
    assert [turns.next(1.0), turns.ended("a", 1.0), turns.next(2.0)][::2] == [
        Ask("a", "hop"),
        Ask("a", "then"),
    ]


def test_an_unused_turn_costs_nothing() -> None:
    turns = frontier()
    turns.add("a", ["1", "2"])
    turns.next(0.0)
    turns.unused("a")
    assert turns.next(0.0) == Ask("a", "2")


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 6), min_size=1),
    st.lists(st.floats(0.0, 3.0), min_size=40, max_size=40),
    st.integers(1, 4),
)
def test_every_job_comes_once_and_no_host_is_hurried(
    hosts: dict[str, int], latencies: list[float], limit: int
) -> None:
    turns = frontier(limit=limit)
    for host, count in hosts.items():
        turns.add(host, [f"{host}{n}" for n in range(count)])
    now, asked_at, flying = 0.0, defaultdict(list), list[tuple[float, str]]()
    ended_at: dict[str, float] = {}
    seen: list[str] = []
    while not isinstance(step := turns.next(now), Done):
        if isinstance(step, Ask):
            asked_at[step.host].append(now)
            assert now - ended_at.get(step.host, -9.0) > 1.0 - 1e-9
            seen.append(step.job)
            flying.append((now + latencies[len(seen)], step.host))
            assert len(flying) <= limit
            continue
        assert flying or step.until is not None
        if flying and (step.until is None or min(flying)[0] <= step.until):
            flying.remove(first := min(flying))
            now = first[0]
            turns.ended(first[1], now)
            ended_at[first[1]] = now
        else:
            assert step.until is not None and step.until > now
            now = step.until
    assert sorted(seen) == sorted(f"{h}{n}" for h, count in hosts.items() for n in range(count))
    for moments in asked_at.values():
        assert all(b - a > 1.0 - 1e-9 for a, b in itertools.pairwise(moments))


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
