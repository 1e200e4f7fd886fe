"""The learning rate of a step: a straight rise, then half a cosine down to a share of the top.

Loshchilov and Hutter 2017 (SGDR) without restarts, with the linear warm-up of GPT-2's successors.
A pure function of the step, so that resuming needs no state of it.
"""

import math

from training.config import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of the optimizer step that has `step` steps before it."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    falling = max(1, config.steps - 1 - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / falling)
    lowest = config.final_learning_rate_share
    share = lowest + (1.0 - lowest) * 0.5 * (1.0 + math.cos(math.pi * done))
    return config.learning_rate * share
