"""Turns are used for requests beside each other; what goes wrong in one ends the whole, by name."""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from crawl.pace import Pace
from crawl.turns import Turns

PACE = Pace(min_delay_s=0.0)


@dataclass
class Job:
    target: str


class Rig:
    """Turns with a hand-turned clock, and the uses that they were put to."""

    def __init__(self, use: Any = None, pace: Pace = PACE, limit: int = 4) -> None:
        self.now, self.received = 0.0, 0
        self.used: list[str] = []
        self.dropped: list[str] = []
        self._use = use
        self.turns = Turns(
            pace, limit, lambda: self.now, self.use, self.drop, lambda: self.received
        )

    def use(self, host: str, job: Any) -> Coroutine[Any, Any, None] | None:
        self.used.append(job.target)
        return self._use(self, host, job) if self._use else None

    def drop(self, host: str, job: Any) -> None:
        self.dropped.append(job.target)

    def add(self, *targets: str, host: str = "") -> None:
        jobs: list[Any] = [Job(target) for target in targets]
        for job in jobs:
            self.turns.frontier.add(host or job.target, [job])

    def run(self, until: Callable[[], bool], *then: Callable[[], None]) -> None:
        """Gives turns until so; each of `then` is done when it is so once more."""

        async def give() -> None:
            given = asyncio.create_task(self.turns.give())
            for do in (*then, None):
                while not (until() or given.done()):
                    await asyncio.sleep(0)
                if do:
                    do()
                    self.turns.wake()
                    for _ in range(50):
                        await asyncio.sleep(0)
            if given.done():
                given.result()
            given.cancel()

        asyncio.run(asyncio.wait_for(give(), 60))


async def quick(rig: Rig, host: str, job: Any) -> None:
    rig.turns.frontier.ended(host, rig.now)
    rig.turns.wake()


def test_requests_go_their_way_beside_each_other_up_to_a_limit() -> None:
    here: set[str] = set()
    most = 0

    async def together(rig: Rig, host: str, job: Any) -> None:
        nonlocal most
        here.add(host)
        most = max(most, len(here))
        for _ in range(20):
            await asyncio.sleep(0)
        here.discard(host)
        rig.turns.frontier.ended(host, rig.now)
        rig.turns.wake()

    rig = Rig(together)
    rig.add(*(f"h{n}" for n in range(12)))
    rig.run(lambda: len(rig.used) == 12 and not here)
    assert most == 4


def test_a_turn_that_is_not_used_costs_its_host_no_delay() -> None:
    rig = Rig(pace=Pace(min_delay_s=1000.0))
    rig.add(*(f"page{n}" for n in range(200)), host="a")
    rig.run(lambda: len(rig.used) == 200)
    assert rig.now == 0.0


def test_what_is_left_of_a_lost_host_is_settled_unasked() -> None:
    async def fail(rig: Rig, host: str, job: Any) -> None:
        rig.turns.frontier.ended(host, rig.now, failed=True)
        rig.turns.wake()

    rig = Rig(fail, Pace(min_delay_s=0.0, max_failures=2))
    rig.add(*(f"page{n}" for n in range(9)), host="a")
    rig.run(lambda: len(rig.dropped) == 7)
    assert rig.used == ["page0", "page1"]


def test_nobody_is_asked_while_it_is_held() -> None:
    rig = Rig(quick)
    rig.turns.held = True
    rig.add("a", "b")
    seen: list[int] = []

    def go_on() -> None:
        seen.append(len(rig.used))
        rig.turns.held = False

    rig.run(lambda: not rig.turns.held or True, go_on)
    assert seen == [0]
    rig.run(lambda: len(rig.used) == 2)


@pytest.mark.parametrize("at_once", [True, False])
def test_what_goes_wrong_is_raised_as_it_is_with_its_address(at_once: bool) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    async def later() -> None:
        raise full

    def broken(rig: Rig, host: str, job: Any) -> Any:
        if at_once:
            raise full
        return later()

    rig = Rig(broken)
    rig.add("http://a.test/")
    with pytest.raises(OSError, match="No space") as raised:
        rig.run(lambda: False)
    assert raised.value is full
    assert "while asking for http://a.test/" in full.__notes__


@pytest.mark.parametrize("at_once", [True, False])
def test_a_fault_of_ours_says_which_address_met_it(at_once: bool) -> None:
    async def later() -> None:
        raise ValueError("odd")

    def broken(rig: Rig, host: str, job: Any) -> Any:
        if at_once:
            raise ValueError("odd")
        return later()

    rig = Rig(broken)
    rig.add("http://a.test/")
    with pytest.raises(RuntimeError, match=r"asking for http://a.test/ failed: ValueError: odd"):
        rig.run(lambda: False)


def test_a_failure_ends_the_other_requests_too() -> None:
    ended: list[str] = []

    async def one_fails(rig: Rig, host: str, job: Any) -> None:
        if host == "bad":
            await asyncio.sleep(0)
            raise OSError("bad")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(host)

    rig = Rig(one_fails)
    rig.add("a", "b", "bad")
    with pytest.raises(OSError, match="bad"):
        rig.run(lambda: False)
    assert sorted(ended) == ["a", "b"]


# The bytes


def taken(rig: Rig, seconds: float, step: float = 0.25, size: int = 1000) -> int:
    """Turns that are given in so many seconds, each of which brings `size` bytes."""
    before = len(rig.used)
    until = rig.now + seconds
    while rig.now < until:
        while rig.turns._debt_s() <= 0:
            rig.used.append("")
            rig.received += size
        rig.now += step
    return len(rig.used) - before


def test_no_more_bytes_are_taken_than_may_be_on_the_average() -> None:
    rig = Rig()
    rig.turns.max_bytes_per_s = 10_000
    assert taken(rig, 100.0) == pytest.approx(1000, abs=12)


def test_a_bound_can_change_and_go() -> None:
    rig = Rig()
    rig.received = 10**9  # what came before there was a bound is not held against anybody
    assert rig.turns._debt_s() == 0.0
    rig.turns.max_bytes_per_s = 10_000
    assert taken(rig, 10.0) == pytest.approx(100, abs=12)
    rig.turns.max_bytes_per_s = 20_000
    assert taken(rig, 10.0) == pytest.approx(200, abs=22)
    rig.turns.max_bytes_per_s = 0
    assert rig.turns._debt_s() == 0.0


def test_an_idle_hour_is_not_made_up_for() -> None:
    rig = Rig()
    rig.turns.max_bytes_per_s = 10_000
    taken(rig, 1.0)
    rig.now += 3600.0
    assert taken(rig, 10.0) == pytest.approx(100, abs=25)


def test_one_large_answer_is_paid_for_before_the_next() -> None:
    rig = Rig()
    rig.turns.max_bytes_per_s = 1000
    rig.received = 60_000
    assert rig.turns._debt_s() == pytest.approx(60.0, abs=1.01)
    rig.now += 70.0
    assert rig.turns._debt_s() <= 0.0


def test_turns_wait_for_the_bytes_that_were_taken() -> None:
    async def large(rig: Rig, host: str, job: Any) -> None:
        rig.received += 100_000
        rig.turns.frontier.ended(host, rig.now)
        rig.turns.wake()

    rig = Rig(large, limit=1)
    rig.turns.max_bytes_per_s = 1000
    rig.add("a", "b")

    def later() -> None:
        assert len(rig.used) == 1
        rig.now += 200.0

    rig.run(lambda: rig.turns._debt_s() > 0, later)
    assert len(rig.used) == 2
