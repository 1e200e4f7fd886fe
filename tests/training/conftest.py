"""Small settings and token files on which every part of the trainer runs in milliseconds."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from training.config import ModelConfig, TrainingConfig

# Training is an extra: what needs it is left out where it is not installed.
_HEAVY = [
    "model", "cross_entropy", "huggingface", "engine", "loop", "course", "parts", "saver",
    "evaluate", "generate", "loader", "board", "flops", "fit", "spikes",
]  # fmt: skip
collect_ignore = [f"test_{name}.py" for name in _HEAVY if find_spec("torch") is None]
_RANKS = ["zero", "rank"]
collect_ignore += [f"test_{name}.py" for name in _RANKS if find_spec("deepspeed") is None]

SIZES = ModelConfig(layers=2, heads=2, width=16, context=16, vocabulary=61)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Matrices this small are slower on two threads, and much slower on a busy machine."""
    if "torch" in sys.modules:  # the light half is tested where torch is not installed
        sys.modules["torch"].set_num_threads(1)


def _walk(length: int, seed: int) -> np.ndarray:
    """Ids that mostly grow by one, so that there is something to learn."""
    random = np.random.default_rng(seed)
    return (np.cumsum(random.choice([1, 1, 1, 5], length)) % SIZES.vocabulary).astype("<u2")


@pytest.fixture
def tokens_folder(tmp_path: Path) -> Path:
    """Two shards of a train split, an empty one, and a validation split."""
    folder = tmp_path / "tokens"
    folder.mkdir()
    for name, length, seed in (("00000", 1500, 1), ("00001", 0, 2), ("00002", 1700, 3)):
        _walk(length, seed).tofile(folder / f"{name}.train.bin")
        _walk(length // 10, seed + 10).tofile(folder / f"{name}.validation.bin")
    return folder


@pytest.fixture
def folder(tokens_folder: Path) -> Path:
    """A run's, beside the tokens."""
    return tokens_folder.parent / "run"


@pytest.fixture
def config() -> TrainingConfig:
    """Eight windows a step, four forward passes of two."""
    return TrainingConfig(
        model=SIZES,
        batch_tokens=128,
        micro_batch=2,
        steps=20,
        warmup_steps=2,
        learning_rate=1e-2,
        precision="fp32",
        checkpoint_every=10,
        evaluate_every=5,
        evaluate_windows=4,
    )
