from pathlib import Path
from random import Random

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


def epochs_of(read: list[int], windows: int) -> list[list[int]]:
    """What was read, cut where each window should have come once more."""
    return [read[begin : begin + windows] for begin in range(0, len(read), windows)]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**63 - 1), st.integers(1, 5), st.data()
)
def test_a_run_reads_each_window_once_an_epoch(
    windows: int, batch: int, seed: int, world: int, data: st.DataObject
) -> None:
    """Whatever of batch and windows divides what, and over the borders of epochs."""
    micro = data.draw(st.integers(1, batch))
    read: list[int] = []
    for step in range(-(-3 * windows // batch)):
        numbers = batches.step_windows(seed, step, batch, windows)
        ranks = [batches.passes(numbers, rank, world, micro) for rank in range(world)]
        of_ranks = [int(number) for passes in ranks for each in passes for number in each]
        assert sorted(of_ranks) == sorted(numbers.tolist()) and len(of_ranks) == batch
        read += numbers.tolist()
    for epoch in epochs_of(read, windows)[:3]:
        assert sorted(epoch) == list(range(windows))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 9), st.sets(st.integers(0, 12)))
def test_what_skipped_batches_hold_is_all_that_is_left_out(
    windows: int, batch: int, seed: int, skipped: set[int]
) -> None:
    count = -(-2 * windows // batch)
    left_out = {number for number in skipped if number < count}
    numbers = [batches.batch_number(step, skipped) for step in range(count - len(left_out))]
    found = {n: batches.step_windows(seed, n, batch, windows).tolist() for n in numbers}
    found |= {n: batches.step_windows(seed, n, batch, windows).tolist() for n in left_out}
    assert len(numbers) + len(left_out) == len(found) == count
    read = [window for number in range(count) for window in found[number]]
    for epoch in epochs_of(read, windows)[:2]:
        assert sorted(epoch) == list(range(windows))


@given(st.integers(0, 40), st.sets(st.integers(0, 50), max_size=12), st.randoms())
def test_the_batch_of_a_step_is_where_a_walk_comes_to(
    step: int, skipped: set[int], random: Random
) -> None:
    number, left = -1, step + 1
    while left:
        number += 1
        left -= number not in skipped
    shuffled = sorted(skipped, key=lambda _: random.random())
    assert batches.batch_number(step, shuffled) == number


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 9))
def test_ranks_share_all_windows_in_as_many_passes_each(count: int, world: int, micro: int) -> None:
    numbers = np.random.default_rng(count).permutation(count).astype(np.int64)
    ranks = [batches.passes(numbers, rank, world, micro) for rank in range(world)]
    assert len({len(passes) for passes in ranks}) == 1
    assert all(len(each) <= micro for passes in ranks for each in passes)
    shares = [[int(n) for each in passes for n in each] for passes in ranks]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    woven = [share[i] for i in range(count) for share in shares if i < len(share)]
    assert woven == numbers.tolist()
    # Filled as a pass is, and no pass is empty on all ranks.
    assert len(ranks[0]) == -(-len(shares[0]) // micro)


@given(st.integers(0, 50), st.integers(1, 7), st.integers(1, 40), st.integers(1, 30))
def test_the_samples_of_a_step_do_not_depend_on_world(
    step: int, world: int, windows: int, batch: int
) -> None:
    """Sample g of the step lies on rank g mod world, in its order."""
    whole = batches.step_windows(3, step, batch, windows)
    alone = np.concatenate(batches.passes(whole, 0, 1, batch))
    shares = [np.concatenate(batches.passes(whole, rank, world, 2)) for rank in range(world)]
    woven = [int(shares[g % world][g // world]) for g in range(batch)]
    assert woven == whole.tolist() == alone.tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 9))
def test_the_stream_of_samples_does_not_depend_on_the_batch(
    batch: int, windows: int, step: int
) -> None:
    one_by_one = [int(batches.step_windows(5, g, 1, windows)[0]) for g in range(batch * (step + 1))]
    assert batches.step_windows(5, step, batch, windows).tolist() == one_by_one[-batch:]


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
    # So do batches that are epochs.
    epochs = {tuple(batches.step_windows(1, number, 50, 50).tolist()) for number in range(5)}
    assert len(epochs) == 5


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


def test_no_windows_are_a_table_without_rows(tmp_path: Path) -> None:
    np.arange(21, dtype="<u2").tofile(tmp_path / "0.train.bin")
    found = batches.read(tokens.open_split(tmp_path, "train"), [], 4)
    assert found.shape == (0, 5) and found.dtype == np.int64


def test_fewer_tokens_than_a_window_are_refused(tmp_path: Path) -> None:
    np.arange(8, dtype="<u2").tofile(tmp_path / "0.train.bin")
    split = tokens.open_split(tmp_path, "train")
    assert batches.require_window(split, 7, "here") == 1
    with pytest.raises(BadInput, match="here: 8 tokens are fewer"):
        batches.require_window(split, 8, "here")
