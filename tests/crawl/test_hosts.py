"""Which host goes first, and how its jobs are held."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from crawl.frontier import Ask, Done, Frontier
from crawl.pace import Pace

from .turns import asked, frontier


def test_the_longest_host_goes_first() -> None:
    turns = frontier()
    turns.add("short", ["1"])
    turns.add("long", ["1", "2", "3"])
    turns.add("middle", ["1", "2"])
    steps = [turns.next(0.0) for _ in range(3)]
    assert [step.host for step in steps if isinstance(step, Ask)] == ["long", "middle", "short"]


def test_a_slow_host_is_longer_than_one_with_more_pages() -> None:
    turns = frontier()
    turns.add("many", list("12345"))
    turns.add("slow", list("12"))
    turns.slow("slow", 3.0)
    assert turns.next(0.0) == Ask("slow", "1")


def test_a_host_that_has_grown_goes_before_those_it_has_outgrown() -> None:
    turns = frontier()
    turns.add("a", ["1"])
    turns.add("b", ["1", "2"])
    turns.add("a", ["2", "3"])
    assert turns.next(0.0) == Ask("a", "1")
    assert turns.next(0.0) == Ask("b", "1")


def test_without_any_delay_all_hosts_are_as_long() -> None:
    turns = frontier(limit=1, min_delay_s=0.0)
    for host in "abc":
        turns.add(host, list("123"))
    order = []
    while isinstance(step := turns.next(0.0), Ask):
        order.append(step.host)
        turns.ended(step.host, 0.0)
    assert order == list("abcabcabc")


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=30))
def test_no_host_waits_for_one_that_is_shorter_by_a_sixteenth(lengths: list[int]) -> None:
    turns: Frontier[int] = Frontier(Pace(min_delay_s=1.0), 1000)
    for number, length in enumerate(lengths):
        turns.add(str(number), range(length))
    order = []
    while isinstance(step := turns.next(0.0), Ask):
        order.append(lengths[int(step.host)])
    assert sorted(order) == sorted(lengths)
    for place, length in enumerate(order):
        assert max(order[place:]) <= length * 17 / 16
        assert length >= 32 or max(order[place:]) == length


def test_a_million_jobs_are_held_as_they_were_handed_in() -> None:
    class Lazy(Sequence[int]):
        read = 0

        def __len__(self) -> int:
            return 10**12

        def __getitem__(self, place: int) -> int:  # type: ignore[override]
            self.read += 1
            return place

    jobs, turns = Lazy(), Frontier[int](Pace(min_delay_s=1.0), 1)
    turns.add("a", jobs)
    turns.add("a", range(5))
    assert turns.counts().jobs == 10**12 + 5
    for now in range(3):
        assert turns.next(now) == Ask("a", now)
        turns.ended("a", now)
    assert jobs.read == 3


def test_segments_follow_each_other() -> None:
    turns = frontier(min_delay_s=0.0)
    turns.add("a", "12")
    turns.add("a", "")
    turns.add("a", "3")
    assert asked(turns, 0.0)[0] == "1"
    turns.again("a", "x")
    turns.add("a", "45")
    assert [asked(turns, 0.0)[0] for _ in range(5)] == list("x2345")
    turns.add("a", "6")
    assert [asked(turns, 0.0)[0], turns.next(0.0)] == ["6", Done()]
