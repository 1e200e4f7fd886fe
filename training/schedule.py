"""The learning rate of a step: a straight rise, then down to a share of the top.

Down along half a cosine (Loshchilov and Hutter 2017, without restarts), or as a trapezoid: level,
then a straight line at the end (Hägele et al. 2024). A pure function of the step, so that resuming
needs no state of it.
"""

import math

from training.config import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of the optimizer step that has `step` steps before it."""
    if step < config.warmup_steps:
        return config.learning_rate * ((step + 1) / config.warmup_steps)
    lowest = config.final_learning_rate_share
    share = lowest + (1.0 - lowest) * _left(step, config)
    return config.learning_rate * share


def _left(step: int, config: TrainingConfig) -> float:
    """How much of the fall is still to come after the warm-up: 1 at its begin, 0 at the last step
    and after it."""
    last = config.steps - 1
    if config.schedule == "trapezoid":
        return min(1.0, max(0, last - step) / max(1, config.decay_steps))
    done = min(1.0, (step - config.warmup_steps) / max(1, last - config.warmup_steps))
    return 0.5 * (1.0 + math.cos(math.pi * done))
