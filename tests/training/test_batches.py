from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import batches, tokens
from training.config import BadInput


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_each_window_stands_once_in_an_epoch(count: int, seed: int, epoch: int) -> None:
    found = batches.permuted(np.arange(count), count, seed, epoch)
    assert sorted(found.tolist()) == list(range(count))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_epoch_over_steps_and_ranks_reads_each_window_once(data: st.DataObject) -> None:
    world = data.draw(st.integers(1, 4))
    batch = world * data.draw(st.integers(1, 5))
    windows = batch * data.draw(st.integers(1, 12))
    epoch = data.draw(st.integers(0, 3))
    steps = range(epoch * windows // batch, (epoch + 1) * windows // batch)
    found = [
        batches.rank_windows(7, step, batch, windows, rank, world).tolist()
        for step in steps
        for rank in range(world)
    ]
    assert sorted(number for part in found for number in part) == list(range(windows))


@given(st.integers(0, 50), st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(1, 40))
def test_the_samples_of_a_step_do_not_depend_on_world(step: int, world: int, windows: int) -> None:
    whole = batches.step_windows(3, step, 12, windows)
    parts = [batches.rank_windows(3, step, 12, windows, rank, world) for rank in range(world)]
    woven = np.stack(parts, axis=1).ravel()
    assert woven.tolist() == whole.tolist()


def test_a_step_may_span_epochs() -> None:
    found = np.concatenate([batches.step_windows(1, step, 7, 5) for step in range(5)])
    for epoch in range(7):
        assert sorted(found[epoch * 5 : epoch * 5 + 5].tolist()) == list(range(5))


def test_epochs_and_seeds_have_different_orders() -> None:
    orders = {
        tuple(batches.permuted(np.arange(1000), 1000, seed, epoch).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_neighbours_are_torn_apart() -> None:
    found = batches.permuted(np.arange(10_000), 10_000, 1, 0)
    assert (np.abs(np.diff(found)) < 10).mean() < 0.01
    # The mean distance of two independent places is a third of the length.
    assert abs(np.abs(np.diff(found)).mean() / 10_000 - 1 / 3) < 0.02


def test_a_place_far_out_costs_no_table() -> None:
    count = 2**40 + 1
    found = batches.permuted(np.array([0, count - 1]), count, 1, 0)
    assert ((found >= 0) & (found < count)).all() and found[0] != found[1]


def test_the_order_is_pinned() -> None:
    """A change here changes every run's course: raise checkpoint.VERSION with it."""
    assert batches.step_windows(1, 3, 8, 1000).tolist() == [705, 609, 5, 732, 204, 387, 13, 565]
    assert batches.step_windows(1, 3, 8, 1024).tolist() == [705, 609, 5, 732, 204, 387, 13, 565]


def test_read_gives_whole_windows(tmp_path: Path) -> None:
    np.arange(21, dtype="<u2").tofile(tmp_path / "0.train.bin")
    found = batches.read(tokens.open_split(tmp_path, "train"), [4, 0], 5 - 1)
    assert found.tolist() == [[16, 17, 18, 19, 20], [0, 1, 2, 3, 4]]
    assert found.dtype == np.int64


def test_fewer_tokens_than_a_window_are_refused(tmp_path: Path) -> None:
    np.arange(8, dtype="<u2").tofile(tmp_path / "0.train.bin")
    split = tokens.open_split(tmp_path, "train")
    assert batches.require_window(split, 7, "here") == 1
    with pytest.raises(BadInput, match="here: 8 tokens are fewer"):
        batches.require_window(split, 8, "here")
