"""How much arithmetic a token is: against the published figures, and against torch's own count."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training import flops
from training.config import PRESETS, ModelConfig
from training.model import build

CPU = torch.device("cpu")


def test_a_token_costs_what_is_published() -> None:
    found = {name: round(flops.per_token(sizes) / 1e9, 3) for name, sizes in PRESETS.items()}
    assert found == {
        "gpt2-small": 0.855,
        "gpt2-medium": 2.425,
        "gpt2-large": 5.203,
        "gpt2-xl": 10.280,
    }


@pytest.mark.parametrize(
    "sizes",
    [
        ModelConfig(layers=2, heads=2, width=16, context=8, vocabulary=128),
        ModelConfig(layers=3, heads=1, width=8, context=20, vocabulary=64),
    ],
)
def test_it_is_what_torch_counts_of_a_step(sizes: ModelConfig) -> None:
    """But for biases and norms, which the formula takes for matrices; without padding."""
    model, windows = build(sizes, 1), 3
    ids = torch.zeros((windows, sizes.context), dtype=torch.int64)
    # Written out, attention's products are counted too; in bf16 so is the head's gradient.
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
        torch.autocast("cpu", torch.bfloat16),
    ):
        model(ids, ids).backward()
    vectors = sum(w.numel() for w in model.parameters() if w.dim() == 1)
    counted = counter.get_total_flops() / (windows * sizes.context)
    assert flops.per_token(sizes) - 6 * vectors == counted


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_peak_of_this_machine_can_be_measured(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setitem(flops._SIDE, "cpu", 64)
    found = flops.measured_peak(CPU, precision)
    assert math.isfinite(found) and found > 0


def test_the_peak_is_that_of_the_best_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that counts up by itself: rounds of 5, 1 and 2 s, then all of 3 s."""
    took = iter([5.0, 1.0, 2.0] + [3.0] * 1000)
    now = 0.0
    begins = True

    def clock() -> float:
        nonlocal now, begins
        now += 0.0 if begins else next(took)
        begins = not begins
        return now

    monkeypatch.setitem(flops._SIDE, "cpu", 64)
    monkeypatch.setattr("time.perf_counter", clock)
    assert flops.measured_peak(CPU, "fp32") == 2 * 64**3 / 1.0


def test_no_maker_states_a_cpus_peak() -> None:
    assert flops.published_peak(CPU) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("Another Maker's", None),
    ],
)
def test_a_known_gpu_is_known_by_a_part_of_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: name)
    assert flops.published_peak(torch.device("cuda", 0)) == peak
