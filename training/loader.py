"""Batches as tensors, one step ahead of the training.

While a step is computed, a thread reads the windows of the next; so the data costs time only where
the disk is slower than the model.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from training import batches
from training.config import BadInput, ModelConfig
from training.cross_entropy import IGNORED
from training.engine import Batch
from training.tokens import Tokens


class Ahead:
    """Makes what is wanted next before it is asked for."""

    def __init__(self, make: Callable[[int], list[Batch]]) -> None:
        """`make` gives what is wanted by its number."""
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[list[Batch]]] | None = None

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, number: int, then: int) -> list[Batch]:
        """Batch `number`, and begin with `then`; raises what reading it met."""
        if self._next is None or self._next[0] != number:
            self._next = number, self._pool.submit(self._make, number)
        found = self._next[1].result()
        self._next = then, self._pool.submit(self._make, then)
        return found


def tables(
    tokens: Tokens, passes: Sequence[NDArray[np.int64]], sizes: ModelConfig, micro: int
) -> list[Batch]:
    """The windows of each pass as inputs and targets, `micro` rows each: where there are fewer, the
    rest is filling, whose targets are IGNORED. BadInput where an id is outside the vocabulary."""
    return [batch(batches.read(tokens, each, sizes.context), sizes, micro) for each in passes]


def batch(ids: NDArray[np.int64], sizes: ModelConfig, micro: int) -> Batch:
    """One such pair of tables, of windows' ids."""
    if ids.size and ids.max() >= sizes.vocabulary:
        raise BadInput(
            f"training.model.vocabulary: is {sizes.vocabulary}, but the tokens hold id {ids.max()}"
        )
    inputs = torch.zeros((micro, sizes.context), dtype=torch.int64)
    targets = torch.full_like(inputs, IGNORED)
    inputs[: len(ids)] = torch.from_numpy(ids[:, :-1])
    targets[: len(ids)] = torch.from_numpy(ids[:, 1:])
    if torch.cuda.is_available():  # so that the copy to the GPU does not hold up this process
        return inputs.pin_memory(), targets.pin_memory()
    return inputs, targets
