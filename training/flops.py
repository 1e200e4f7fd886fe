"""How much arithmetic training is, and how much of it the device can do: the two sides of MFU.

MFU (model FLOPs utilisation, Chowdhery et al. 2022, appendix B) here is against the *measured* peak
of one large matrix product on this very device, so that 1.0 is what the best program could reach.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from training.config import ModelConfig

_SIDE = {"cuda": 8192, "cpu": 1024}
_WARM_UP, _ROUNDS = 3, 10
_PUBLISHED = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 FLOP/s of makers' data sheets, by a part of the device's name."""


def per_token(sizes: ModelConfig) -> float:
    """FLOPs of forward and backward pass for one token: 6 (N - positions) + 12 layers width context
    (the same appendix; as nanoGPT counts). Recomputation is not counted: it is no progress."""
    learnt = sizes.parameters() - sizes.context * sizes.width
    return 6 * learnt + 12 * sizes.layers * sizes.width * sizes.context


def measured_peak(device: torch.device, precision: str) -> float:
    """FLOP/s of a square matrix product in the precision of the training."""
    side = _SIDE[device.type]
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    # Not a constant, on which a GPU draws less power, and so runs faster than on any real matrix.
    one = torch.randn((side, side), device=device).to(kind)
    best = min(_seconds(lambda: one @ one, device) for _ in range(_WARM_UP + _ROUNDS))
    return float(2 * side**3 / best)


def published_peak(device: torch.device) -> float | None:
    """bf16 FLOP/s that the maker states, where we know the device."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PUBLISHED.items() if part in name), None)


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
