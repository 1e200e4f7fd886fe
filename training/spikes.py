"""Tells of a spike: which documents its batch was made of, and where they came from.

A line of `spikes.jsonl` is one spike: step, batch, loss, grad_norm, z (by what spiked) and
documents, each with its url, document_id and windows.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from training import batches, files, provenance
from training.config import BadInput
from training.run import Run

_NAME = "spikes.jsonl"
_SHOWN = 5
_log = logging.getLogger(__name__)


class _Line(msgspec.Struct):
    batch: int


def tell(run: Run, number: int, line: Mapping[str, Any], z: Mapping[str, float]) -> None:
    """Write down the spike of batch `number`, whose step had the metrics `line`; once, though a
    crash may make the same step come again."""
    path = run.folder / _NAME
    whole, end, _ = (path.read_bytes() if path.exists() else b"").rpartition(b"\n")
    before = whole + end
    if number in map(_batch, before.splitlines()):
        return
    windows = batches.step_windows(
        run.config.seed, number, run.config.batch_windows(), run.train.windows(run.context)
    ).tolist()
    try:
        documents = provenance.documents(run.tokens_folder, "train", windows, run.context)
    except (BadInput, OSError) as error:
        # Not worth a run: tokens without their index can be trained on.
        _log.warning("whose tokens they were cannot be told: %s", error)
        documents = []
    told = {
        "step": line["step"],
        "batch": number,
        "loss": line["loss"],
        "grad_norm": line["grad_norm"],
        "z": z,
        "documents": documents,
    }
    # Whole: a line may be long, and the disk full or the machine gone in its middle.
    files.write(path, before + msgspec.json.encode(told) + b"\n")
    _log.warning(
        "step %d: %s; its %d windows are of %d documents (%s): %s ...",
        line["step"],
        ", ".join(f"{name} {line[name]:.3f} is {z[name]:.1f} deviations high" for name in z),
        len(windows),
        len(documents),
        path,
        " ".join(document.url for document in documents[:_SHOWN]),
    )


def _batch(line: bytes) -> int | None:
    """Of what was told; None where it is damaged: nothing depends on it."""
    try:
        return msgspec.json.decode(line, type=_Line).batch
    except ValueError:  # also bytes that are no UTF-8
        return None
