"""A frontier as most tests want it, and steps of it with a clock turned by hand."""

from crawl.frontier import Ask, Done, Drop, Frontier, Wait
from crawl.pace import Pace


def frontier(limit: int = 10, **bounds: float) -> Frontier[str]:
    given = {"max_delay_s": 100.0, "back_off_s": 5.0, "max_failures": 1000} | bounds
    return Frontier(Pace(min_delay_s=given.pop("min_delay_s", 1.0), **given), limit)  # type: ignore[arg-type]


def after_waiting(turns: Frontier[str], now: float) -> tuple[Ask[str] | Drop[str] | Done, float]:
    """The next turn, and its moment; nothing may be in flight that it would wait for."""
    while isinstance(step := turns.next(now), Wait):
        assert step.until is not None and step.until > now
        now = step.until
    return step, now


def asked(turns: Frontier[str], now: float, **answer: float | bool) -> tuple[str, float]:
    """The next job, which is asked and answered at once; and when."""
    step, now = after_waiting(turns, now)
    assert isinstance(step, Ask)
    turns.ended(step.host, now, **answer)  # type: ignore[arg-type]
    return step.job, now
