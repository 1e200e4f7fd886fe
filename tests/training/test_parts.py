import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training import files, parts


def tensors(sizes: list[int], plus: float = 0.0) -> dict[str, Tensor]:
    return {f"weights/{n}": torch.arange(size) + n + plus for n, size in enumerate(sizes)}


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(1, 5))
def test_each_tensor_lies_on_one_rank_and_all_hold_about_as_much(
    sizes: list[int], world: int
) -> None:
    state = tensors(sizes)
    held = [parts.Buffers(rank, world).copy(iter(state.items())) for rank in range(world)]
    assert sorted(name for part in held for name in part) == sorted(state)
    for part in held:
        assert all(torch.equal(part[name], state[name].float()) for name in part)
    amounts = [sum(tensor.numel() for tensor in part.values()) for part in held]
    assert max(amounts) - min(amounts) <= max(sizes, default=0)


def test_copies_keep_what_was_and_the_next_ones_take_their_place() -> None:
    buffers, state = parts.Buffers(0, 2), tensors([3, 4, 5, 6])
    first = buffers.copy(iter(state.items()))
    kept = {name: tensor.clone() for name, tensor in first.items()}
    for tensor in state.values():
        tensor += 100
    assert all(torch.equal(first[name], kept[name]) for name in kept)
    second = buffers.copy(iter(state.items()))
    assert list(second) == list(first)
    assert all(second[name].data_ptr() == first[name].data_ptr() for name in first)
    assert all(torch.equal(second[name], kept[name] + 100) for name in kept)


def test_a_tensor_need_be_good_only_until_the_next_is_asked_for() -> None:
    """As where each is gathered from all ranks, one at a time."""

    def gathered() -> Iterator[tuple[str, Tensor]]:
        memory = torch.zeros(4)
        for n in range(3):
            memory.fill_(n)
            yield f"weights/{n}", memory

    found = parts.Buffers(0, 1).copy(gathered())
    assert [int(found[f"weights/{n}"][0]) for n in range(3)] == [0, 1, 2]


def test_what_any_number_of_ranks_wrote_is_read_by_name(tmp_path: Path) -> None:
    state = tensors([3, 4, 5, 6, 7]) | {"exp_avg/0": torch.rand(3)}
    for rank in range(3):
        place = parts.path(tmp_path, rank)
        share = parts.Buffers(rank, 3).copy(iter(state.items()))
        assert parts.write(place, share) == files.sha256(place)
    with parts.opened(tmp_path) as read:
        assert all(torch.equal(read(name), tensor) for name, tensor in state.items())
        with pytest.raises(KeyError):
            read("weights/9")
    found = parts.weights(tmp_path)
    assert sorted(found) == ["0", "1", "2", "3", "4"]
    assert torch.equal(found["4"], state["weights/4"].float())


def test_what_the_disk_says_is_an_error_of_the_system(tmp_path: Path) -> None:
    """tests/training/test_rank.py has a disk that is full."""
    with pytest.raises(OSError, match="could not be written") as caught:
        parts.write(parts.path(tmp_path / "nowhere", 0), tensors([1]))
    assert caught.value.errno == errno.ENOENT
    assert "\n" not in str(caught.value) and "nowhere" in str(caught.value)


def test_each_rank_goes_on_with_its_own_random_numbers_as_if_never_stopped() -> None:
    held, expected = {}, {}
    for rank in (0, 1):
        torch.manual_seed(100 + rank)
        torch.rand(3 + rank)
        held |= parts.random_state(rank)
        expected[rank] = torch.rand(4)
    for rank in (1, 0):
        torch.manual_seed(7)
        parts.restore_random(held.__getitem__, rank, seed=1)
        assert torch.equal(torch.rand(4), expected[rank])
    fresh = []
    for rank in (2, 3, 2):  # who were not there: each has its own, the same every time
        parts.restore_random(held.__getitem__, rank, seed=1)
        fresh.append(torch.rand(4))
    assert torch.equal(fresh[0], fresh[2]) and not torch.equal(fresh[0], fresh[1])
