from itertools import pairwise

import msgspec
import pytest

from training.config import TrainingConfig
from training.schedule import learning_rate

CONFIG = TrainingConfig(
    steps=101, warmup_steps=10, learning_rate=2.0, final_learning_rate_share=0.1
)


def test_warm_up_is_a_straight_line_that_never_starts_at_zero() -> None:
    rates = [learning_rate(step, CONFIG) for step in range(10)]
    assert rates == pytest.approx([0.2 * (step + 1) for step in range(10)])


def test_the_top_follows_the_warm_up_and_the_share_stands_at_the_last_step() -> None:
    assert learning_rate(10, CONFIG) == 2.0
    assert learning_rate(55, CONFIG) == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert learning_rate(100, CONFIG) == pytest.approx(0.2)


def test_it_only_falls_after_the_warm_up() -> None:
    rates = [learning_rate(step, CONFIG) for step in range(10, 101)]
    assert all(later < sooner for sooner, later in pairwise(rates))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 1), (5, 5)])
def test_short_runs_have_a_rate_at_every_step(steps: int, warmup: int) -> None:
    config = TrainingConfig(steps=steps, warmup_steps=warmup, learning_rate=1.0)
    assert all(0 < learning_rate(step, config) <= 1.0 for step in range(steps))


def test_stop_after_does_not_change_it() -> None:
    halted = msgspec.structs.replace(CONFIG, stop_after=20)
    assert [learning_rate(s, halted) for s in range(20)] == [
        learning_rate(s, CONFIG) for s in range(20)
    ]
