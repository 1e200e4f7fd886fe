"""Tables of ids for the model, and the thread that makes them one step ahead."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training import batches, loader, tokens
from training.config import BadInput, ModelConfig
from training.cross_entropy import IGNORED
from training.engine import Batch, counted
from training.model import build

SIZES = ModelConfig(layers=1, heads=1, width=8, context=4, vocabulary=61)
MINUTES = 300.0


def split(folder: Path, ids: list[int]) -> tokens.Tokens:
    np.array(ids, dtype="<u2").tofile(folder / "0.train.bin")
    return tokens.open_split(folder, "train")


def numbered(number: int) -> list[Batch]:
    """Stands for batch `number`."""
    return [(torch.tensor([number]), torch.tensor([-number]))]


def number_of(found: list[Batch]) -> int:
    return int(found[0][0])


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


class Recorder:
    """Makes batches, remembers which, and says when one was made."""

    def __init__(self, fails: int | None = None) -> None:
        self.made: list[int] = []
        self._fails, self._changed = fails, threading.Condition()

    def __call__(self, number: int) -> list[Batch]:
        with self._changed:
            self.made.append(number)
            self._changed.notify_all()
        if number == self._fails:
            raise BadInput(f"shard of {number}: is gone")
        return numbered(number)

    def until(self, said: Callable[[list[int]], bool]) -> list[int]:
        with self._changed:
            assert self._changed.wait_for(lambda: said(self.made), MINUTES)
            return list(self.made)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_what_is_asked_for_is_given_in_any_order(asked: list[tuple[int, int]]) -> None:
    with loader.Ahead(numbered) as ahead:
        for number, then in asked:
            assert number_of(ahead.take(number, then)) == number


def test_one_batch_is_made_ahead_and_none_twice() -> None:
    make = Recorder()
    with loader.Ahead(make) as ahead:
        assert make.made == []
        for number in range(5):
            ahead.take(number, number + 1)
            wanted = list(range(number + 2))
            assert make.until(lambda made, wanted=wanted: len(made) >= len(wanted)) == wanted  # type: ignore[misc]
    assert make.made == list(range(6))


def test_the_next_batch_is_made_while_the_caller_works() -> None:
    """It must not wait for being asked: until the thread is there, the caller stands still."""
    make = Recorder()
    with loader.Ahead(make) as ahead:
        ahead.take(3, 7)
        assert make.until(lambda made: 7 in made) == [3, 7]
        assert threading.current_thread() not in threads() and len(threads()) == 1


def test_an_error_of_the_reader_meets_the_one_who_asks_for_that_batch() -> None:
    make = Recorder(fails=2)
    with loader.Ahead(make) as ahead:
        ahead.take(0, 1)
        ahead.take(1, 2)
        make.until(lambda made: 2 in made)
        with pytest.raises(BadInput, match=r"^shard of 2: is gone$"):
            ahead.take(2, 3)
        assert number_of(ahead.take(3, 4)) == 3


def test_an_error_ahead_that_nobody_asks_for_ends_nothing() -> None:
    with loader.Ahead(Recorder(fails=1)) as ahead:
        assert number_of(ahead.take(0, 1)) == 0
        assert number_of(ahead.take(4, 5)) == 4


@pytest.mark.parametrize("error", [None, KeyError("mine")])
def test_the_thread_ends_with_the_block(error: Exception | None) -> None:
    try:
        with loader.Ahead(numbered) as ahead:
            ahead.take(0, 1)
            assert len(threads()) == 1
            if error:
                raise error
    except KeyError as met:
        assert met is error
    assert threads() == []


def test_targets_are_the_next_ids(tmp_path: Path) -> None:
    found = loader.tables(split(tmp_path, [*range(13)]), [np.array([2, 0])], SIZES, 2)
    ((inputs, targets),) = found
    assert inputs.tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert targets.tolist() == [[9, 10, 11, 12], [1, 2, 3, 4]]
    assert inputs.dtype == targets.dtype == torch.int64


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
def test_all_passes_of_all_ranks_have_one_shape_and_filling_is_ignored(
    tmp_path_factory: pytest.TempPathFactory, windows: int, micro: int, world: int
) -> None:
    """An uneven share, down to none, costs neither a window nor a token."""
    ids = [(7 * place) % 61 for place in range(29)]
    train = split(tmp_path_factory.mktemp("tokens"), ids)
    numbers = np.arange(windows)
    seen = []
    for rank in range(world):
        mine = batches.passes(numbers, rank, world, micro)
        found = loader.tables(train, mine, SIZES, micro)
        assert len(found) == len(mine)
        for pass_, (inputs, targets) in zip(mine, found, strict=True):
            assert inputs.shape == targets.shape == (micro, 4)
            assert (targets[len(pass_) :] == IGNORED).all()
            for number, inp, target in zip(pass_, inputs, targets, strict=False):
                window = train.window(int(number), 4).tolist()
                assert [*inp.tolist(), int(target[-1])] == window
                assert target.tolist() == window[1:]
        assert counted(found) == 4 * sum(len(each) for each in mine)
        seen += [int(number) for each in mine for number in each]
    assert sorted(seen) == list(range(windows))


def learnt(found: list[Batch]) -> tuple[float, list[Tensor]]:
    model = build(SIZES, 1)
    loss = sum((model(*each) for each in found), torch.zeros(()))
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), [
        weight.grad for weight in model.parameters() if weight.grad is not None
    ]


def test_filling_weighs_nothing(tmp_path: Path) -> None:
    train = split(tmp_path, [(5 * place) % 61 for place in range(29)])
    numbers = [np.array([4, 1]), np.array([2])]
    tight = [table for each in numbers for table in loader.tables(train, [each], SIZES, len(each))]
    filled = loader.tables(train, [*numbers, np.array([], dtype=np.int64)], SIZES, 5)
    (loss, grads), (loss_filled, grads_filled) = learnt(tight), learnt(filled)
    assert loss == pytest.approx(loss_filled, rel=1e-6)
    assert len(grads) == len(grads_filled) > 10
    for grad, other in zip(grads, grads_filled, strict=True):
        assert torch.allclose(grad, other, atol=1e-6)


@pytest.mark.parametrize("place", [0, 5, 8])
def test_an_id_outside_the_vocabulary_is_refused(tmp_path: Path, place: int) -> None:
    """Wherever it stands: as an input alone, as both, or as a target alone."""
    ids = [0] * 9
    ids[place] = 60
    train = split(tmp_path, ids)
    assert len(loader.tables(train, [np.array([0, 1])], SIZES, 2)) == 1
    ids[place] = 61
    train = split(tmp_path, ids)
    with pytest.raises(BadInput, match=r"^training\.model\.vocabulary: is 61, .* hold id 61$"):
        loader.tables(train, [np.array([0, 1])], SIZES, 2)
