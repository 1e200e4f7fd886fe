"""The micro-batch that fits: halved until it does, for the same circumstances only."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training import fit
from training.config import BadInput, GuardConfig, ModelConfig, TrainingConfig

SIZES = ModelConfig(layers=2, heads=2, width=4, context=4, vocabulary=61)
CONFIG = TrainingConfig(model=SIZES, batch_tokens=4 * 64, micro_batch=16)


def wrapped(error: BaseException, by: BaseException) -> BaseException:
    """The second, raised because of the first."""
    by.__cause__ = error
    return by


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (torch.OutOfMemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("Last error: Cuda failure 2 'out of memory'"), True),
        (RuntimeError("No valid triton configs. OutOfMemoryError: out of resource"), False),
        (RuntimeError("backend='inductor' raised: OutOfMemoryError: CUDA out of memory."), True),
        (wrapped(torch.OutOfMemoryError(), RuntimeError("backend='inductor' raised:")), True),
        (wrapped(wrapped(torch.OutOfMemoryError(), ValueError()), RuntimeError()), True),
        (wrapped(ValueError("out of memory"), RuntimeError("the compiler")), False),
        (RuntimeError("Connection closed by peer"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (BadInput("training.model: out of memory of this size"), False),
    ],
)
def test_memory_that_does_not_suffice_has_many_words(error: BaseException, full: bool) -> None:
    assert fit.is_full(error) is full


def with_(**fields: Any) -> TrainingConfig:
    return msgspec.structs.replace(CONFIG, **fields)


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    assert fit.found(tmp_path, CONFIG, 1) is None
    assert fit.found(tmp_path / "nowhere", CONFIG, 1) is None


def test_half_of_what_was_too_much_is_known_and_obeyed(tmp_path: Path) -> None:
    assert fit.halve(tmp_path, CONFIG, 2, 16) == 8
    assert fit.found(tmp_path, CONFIG, 2) == 8
    assert CONFIG.micro_windows(2, fits=fit.found(tmp_path, CONFIG, 2)) == 8


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 100), st.integers(1, 3), st.integers(1, 40))
def test_a_run_comes_to_what_fits_and_is_refused_where_nothing_does(
    tmp_path_factory: pytest.TempPathFactory, windows: int, world: int, fits: int
) -> None:
    """Started again after each time that it ran out, as ranks are."""
    folder = tmp_path_factory.mktemp("run")
    config = with_(batch_tokens=4 * windows, micro_batch=64)
    tried = [config.micro_windows(world)]
    while tried[-1] > fits:
        fit.halve(folder, config, world, tried[-1])
        tried.append(config.micro_windows(world, fits=fit.found(folder, config, world)))
    assert all(later <= sooner // 2 for sooner, later in pairwise(tried))
    while tried[-1] > 1:
        fit.halve(folder, config, world, tried[-1])
        tried.append(config.micro_windows(world, fits=fit.found(folder, config, world)))
    with pytest.raises(BadInput, match=r"^training\.micro_batch: not even one window .*recompute"):
        fit.halve(folder, config, world, tried[-1])


def test_one_window_too_many_leaves_no_note(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not even one window"):
        fit.halve(tmp_path, CONFIG, 1, 1)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"model": msgspec.structs.replace(SIZES, layers=1)},
        {"model": msgspec.structs.replace(SIZES, context=8)},
        {"model": msgspec.structs.replace(SIZES, vocabulary=60)},
        {"zero_stage": 2},
        {"offload_optimizer": True},
        {"recompute": True},
        {"compile": True},
        {"precision": "fp32"},
    ],
)
def test_what_memory_depends_on_makes_it_unknown(tmp_path: Path, fields: dict[str, Any]) -> None:
    fit.halve(tmp_path, CONFIG, 2, 16)
    assert fit.found(tmp_path, with_(**fields), 2) is None
    assert fit.found(tmp_path, CONFIG, 2) == 8


def test_another_world_makes_it_unknown(tmp_path: Path) -> None:
    """A rank that shards with fewer others holds more itself."""
    fit.halve(tmp_path, CONFIG, 2, 16)
    assert fit.found(tmp_path, CONFIG, 1) is None


def test_another_device_makes_it_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit.halve(tmp_path, CONFIG, 2, 16)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "large")
    assert fit.found(tmp_path, CONFIG, 2) is None
    fit.halve(tmp_path, CONFIG, 2, 16)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "small")
    assert fit.found(tmp_path, CONFIG, 2) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"batch_tokens": 4 * 32},
        {"micro_batch": 4},
        {"learning_rate": 1e-3},
        {"steps": 1000},
        {"seed": 2},
        {"guard": GuardConfig(hang_s=1.0)},
        {"tokens": "elsewhere"},
    ],
)
def test_what_memory_does_not_depend_on_changes_nothing(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    fit.halve(tmp_path, CONFIG, 2, 16)
    assert fit.found(tmp_path, with_(**fields), 2) == 8


def test_of_several_ranks_the_last_word_counts_whole(tmp_path: Path) -> None:
    for _ in range(3):
        fit.halve(tmp_path, CONFIG, 2, 16)
    fit.halve(tmp_path, with_(zero_stage=2), 2, 4)
    assert (fit.found(tmp_path, CONFIG, 2), fit.found(tmp_path, with_(zero_stage=2), 2)) == (
        None,
        2,
    )
    assert len([*tmp_path.iterdir()]) == 1
