from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import TrainingConfig
from training.schedule import learning_rate

CONFIG = TrainingConfig(
    steps=101, warmup_steps=10, learning_rate=2.0, final_learning_rate_share=0.1
)
TRAPEZOID = msgspec.structs.replace(CONFIG, schedule="trapezoid", decay_steps=40)


@st.composite
def configs(draw: st.DrawFn) -> TrainingConfig:
    steps = draw(st.integers(1, 60))
    warmup = draw(st.integers(0, steps))
    kind = draw(st.sampled_from(("cosine", "trapezoid")))
    return TrainingConfig(
        steps=steps,
        warmup_steps=warmup,
        schedule=kind,
        decay_steps=draw(st.integers(0, steps - warmup)) if kind == "trapezoid" else 0,
        learning_rate=draw(st.floats(1e-6, 10.0)),
        final_learning_rate_share=draw(st.floats(0.0, 1.0)),
    )


def corners(config: TrainingConfig) -> tuple[int, int]:
    """The last step at the top, and the last of all."""
    last = config.steps - 1
    if config.schedule == "cosine":
        return min(config.warmup_steps, last), last
    return last - max(1, config.decay_steps), last


def test_warm_up_is_a_straight_line_that_never_starts_at_zero() -> None:
    rates = [learning_rate(step, CONFIG) for step in range(10)]
    assert rates == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates == [learning_rate(step, TRAPEZOID) for step in range(10)]


def test_the_top_follows_the_warm_up_and_the_share_stands_at_the_last_step() -> None:
    assert learning_rate(10, CONFIG) == 2.0
    assert learning_rate(55, CONFIG) == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert learning_rate(100, CONFIG) == pytest.approx(0.2)


def test_a_trapezoid_stays_at_the_top_until_its_last_steps() -> None:
    assert {learning_rate(step, TRAPEZOID) for step in range(10, 61)} == {2.0}
    assert learning_rate(61, TRAPEZOID) == pytest.approx(2.0 * (1 - 0.9 / 40))
    assert learning_rate(80, TRAPEZOID) == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert learning_rate(100, TRAPEZOID) == pytest.approx(0.2)


def test_it_only_falls_after_the_warm_up() -> None:
    rates = [learning_rate(step, CONFIG) for step in range(10, 101)]
    assert all(later < sooner for sooner, later in pairwise(rates))
    rates = [learning_rate(step, TRAPEZOID) for step in range(60, 101)]
    assert all(later < sooner for sooner, later in pairwise(rates))


@given(configs())
def test_it_is_drawn_between_its_corners(config: TrainingConfig) -> None:
    """The same, otherwise: straight lines by interpolation, the cosine by a squared half-angle."""
    top, lowest = config.learning_rate, config.learning_rate * config.final_learning_rate_share
    level, last = corners(config)
    for step in range(config.steps):
        if step < config.warmup_steps:
            wanted = np.interp(step + 1, [0, config.warmup_steps], [0, top])
        elif step <= level:
            wanted = top
        elif config.schedule == "trapezoid":
            wanted = np.interp(step, [level, last], [top, lowest])
        else:
            angle = np.pi / 2 * (step - level) / (last - level)
            wanted = lowest + (top - lowest) * np.cos(angle) ** 2
        assert learning_rate(step, config) == pytest.approx(float(wanted), rel=1e-9, abs=1e-12)


@given(configs())
def test_it_rises_then_falls_and_is_never_above_the_top(config: TrainingConfig) -> None:
    rates = [learning_rate(step, config) for step in range(config.steps + 1)]
    warm, after = rates[: config.warmup_steps], rates[config.warmup_steps :]
    assert all(0 < rate <= config.learning_rate for rate in warm)
    assert all(later > sooner for sooner, later in pairwise(warm))
    lowest = config.learning_rate * config.final_learning_rate_share
    assert all(lowest * (1 - 1e-12) <= rate <= config.learning_rate for rate in after)
    assert all(later <= sooner for sooner, later in pairwise(after))
    # A cosine needs two steps: of a single one, its begin is what counts.
    if config.steps - config.warmup_steps > (config.schedule == "cosine"):
        assert rates[config.steps - 1] == pytest.approx(lowest, abs=1e-15)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 1), (5, 5)])
def test_short_runs_have_a_rate_at_every_step(steps: int, warmup: int) -> None:
    config = TrainingConfig(steps=steps, warmup_steps=warmup, learning_rate=1.0)
    assert all(0 < learning_rate(step, config) <= 1.0 for step in range(steps))


@given(configs(), st.integers(1, 60))
def test_stop_after_does_not_change_it(config: TrainingConfig, stop: int) -> None:
    halted = msgspec.structs.replace(config, stop_after=stop)
    assert [learning_rate(step, halted) for step in range(config.steps)] == [
        learning_rate(step, config) for step in range(config.steps)
    ]


@given(configs(), st.integers(1, 20))
def test_a_trapezoid_can_be_prolonged(config: TrainingConfig, more: int) -> None:
    """Up to where the shorter one falls, both are one course."""
    level, _ = corners(config)
    if config.schedule == "trapezoid":
        longer = msgspec.structs.replace(config, steps=config.steps + more)
        for step in range(level + 1):
            assert learning_rate(step, longer) == learning_rate(step, config)
