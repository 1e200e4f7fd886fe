"""The batch of (seed, step, rank, world): which windows are read, and their ids.

Sample g of a run (g = 0, 1, ...) is place g mod n of epoch g div n, and an epoch is a keyed
permutation of the n windows: a Feistel network (Luby and Rackoff 1988) with cycle walking, so any
place is found without a table. Rules: each window stands once in an epoch; which samples a step
has does not depend on how many ranks share it; the only state is the number of the step, and of
batches that were left out.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from training.config import BadInput
from training.tokens import Tokens

_ROUNDS = 6
"""Four make a permutation look random to any test of pairs; the halves here can be very small."""


def batch_number(step: int, skipped: Iterable[int]) -> int:
    """Which batch the step with `step` steps before it reads: they follow each other, but for those
    that are left out."""
    number = step
    for left_out in sorted(skipped):
        number += left_out <= number
    return number


def step_windows(seed: int, number: int, batch: int, windows: int) -> NDArray[np.int64]:
    """The window numbers of batch `number`, `batch` of them, in the order of samples."""
    samples = np.arange(number * batch, (number + 1) * batch, dtype=np.int64)
    epochs, places = samples // windows, samples % windows
    found = np.empty_like(places)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        here = epochs == epoch
        found[here] = permuted(places[here], windows, seed, epoch)
    return found


def passes(
    numbers: NDArray[np.int64], rank: int, world: int, micro: int
) -> list[NDArray[np.int64]]:
    """`rank`'s share of windows, every `world`-th, in forward passes of at most `micro`. All ranks
    have as many passes; where the windows do not suffice, the last ones are short or empty."""
    share = numbers[rank::world]
    most = -(-len(numbers) // world)
    return [share[begin : begin + micro] for begin in range(0, most, micro)]


def read(tokens: Tokens, numbers: Iterable[int], context: int) -> NDArray[np.int64]:
    """The ids of windows, one a row, `context` + 1 wide: inputs are all but the last column,
    targets all but the first."""
    rows = [tokens.window(int(number), context) for number in numbers]
    return np.array(rows, dtype=np.int64).reshape(len(rows), context + 1)


def require_window(tokens: Tokens, context: int, where: str) -> int:
    """How many windows there are; BadInput where there is none."""
    windows = tokens.windows(context)
    if not windows:
        raise BadInput(
            f"{where}: {len(tokens)} tokens are fewer than one window of "
            f"training.model.context {context} + 1"
        )
    return windows


def permuted(places: NDArray[np.int64], count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """What stands at `places` of epoch `epoch`'s permutation of 0 .. `count` - 1."""
    half_bits = max(1, ((count - 1).bit_length() + 1) // 2)
    keys = _round_keys(seed, epoch)
    found = _feistel(places.astype(np.uint64), half_bits, keys)
    # The network permutes a power of four that is at most four times `count`. Walking on from a
    # value outside always comes back inside, at a value that no other place reaches.
    while (outside := found >= count).any():
        found[outside] = _feistel(found[outside], half_bits, keys)
    return found.astype(np.int64)


def _feistel(
    values: NDArray[np.uint64], half_bits: int, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return (left << shift) | right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer (Steele, Lea and Flood 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)
