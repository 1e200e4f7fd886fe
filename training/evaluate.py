"""Held-out loss and perplexity of a run's newest whole checkpoint, in plain torch, in fp32.

Needs no DeepSpeed: it reads the checkpoint's weights alone.
"""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training import batches, checkpoint, parts, tokens
from training.checkpoint import Checkpoint
from training.config import BadInput, TrainingConfig
from training.model import GPT2, empty, load_weights

_TOKENS_AT_ONCE = 4096


def evaluate(folder: str, tokens_folder: str, config: TrainingConfig) -> dict[str, float | None]:
    """step, loss (nats a token), perplexity and tokens of the validation split, read in windows
    that do not overlap; the tail that fills no window is left out. A perplexity that no float can
    hold is None, as JSON has no infinity.

    BadInput where the run has no whole checkpoint or the split has less than a window.
    """
    model, step = open_model(folder, config)
    validation = tokens.open_split(tokens_folder, "validation")
    context = config.sizes().context
    windows = batches.require_window(validation, context, "validation tokens")
    at_once = max(1, _TOKENS_AT_ONCE // context)
    total = 0.0
    for start in range(0, windows, at_once):
        numbers = range(start, min(start + at_once, windows))
        total += _summed_loss(model, batches.read(validation, numbers, context))
    loss = total / (windows * context)
    return {
        "step": step,
        "loss": loss,
        "perplexity": perplexity(loss),
        "tokens": windows * context,
    }


def perplexity(loss: float) -> float | None:
    """e to the loss (nats a token), or None above a loss of 709.78, where a float ends."""
    try:
        return math.exp(loss)
    except OverflowError:
        return None


def open_model(folder: str, config: TrainingConfig) -> tuple[GPT2, int]:
    """The model of the newest whole checkpoint, on the GPU where there is one, and its step.

    BadInput where there is no checkpoint or it is of another size than `config` says.
    """
    found, weights = _newest(folder)
    if found.marker.sizes != config.sizes():
        raise BadInput(f"training.model: {found.folder} holds a model of other sizes")
    model = empty(config.sizes())
    load_weights(model, weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).eval(), found.marker.step


def _newest(folder: str) -> tuple[Checkpoint, dict[str, Tensor]]:
    """With its weights. A training that goes on may delete it between a look and the reading: then
    there is a newer one."""
    while True:
        before = checkpoint.steps(Path(folder))
        found = checkpoint.newest(folder)
        if found is None and checkpoint.steps(Path(folder)) != before:
            continue
        if found is None:
            raise BadInput(f"{folder}: no whole checkpoint there; train first")
        try:
            return found, parts.weights(found.folder)
        except FileNotFoundError:
            if (found.folder / checkpoint.COMPLETE).exists():
                raise


def _summed_loss(model: GPT2, ids: NDArray[np.int64]) -> float:
    table = torch.from_numpy(ids).to(model.wte.weight.device)
    with torch.no_grad():
        return float(model(table[:, :-1], table[:, 1:]))
