"""How far a run is: taken up from a checkpoint, saved to one.

Invariant: a course taken up from a checkpoint goes on as if it had never stopped; bit for bit with
as many ranks at the same ZeRO stage, within rounding otherwise.
"""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from training import checkpoint, files, loader, parts
from training.checkpoint import Checkpoint, Marker, Probe
from training.run import Run
from training.saver import Saver

_SKIPPED = "skipped.json"
_SAME = 1e-6
"""Share of a loss by which it may differ from itself, computed in the same way: nothing, but for
sums whose order is not fixed."""
_NEARLY = {"fp32": 1e-4, "bf16": 1e-3}
"""On another device, by other kernels or in another batch. And on a GPU that need not be
deterministic: which of several kernels it takes may depend on which was the quickest there."""
_log = logging.getLogger(__name__)


class NotWhatWasSaved(RuntimeError):
    """A checkpoint whose files are whole gives another model than the one that was saved."""


class NoNumber(NotWhatWasSaved):
    """A model whose loss is no number, which nothing that is read could be compared with."""


@dataclass
class Course:
    """How far a run is; with the settings all that decides what comes next."""

    step: int = 0
    """Optimizer steps done."""
    applied: int = 0
    """Those of them that moved the weights."""
    skipped: set[int] = field(default_factory=set)
    """Batches left out, by their numbers."""


def newest(run: Run) -> Checkpoint | None:
    """The checkpoint to go on from, the same on every rank: the run's newest whole one, else the
    one to fork from, if any. Every rank calls it, rank 0 alone looks.

    BadInput where settings or tokens are not those of the checkpoint, or the run's are damaged.
    """
    config, tokens = run.config, run.train.identity
    own, found = run.agreed(lambda: _look(run))
    if found is None:
        return None
    if own:
        checkpoint.refuse_foreign(found, config, tokens=tokens)
        return found
    checkpoint.refuse_fork(found, config)
    if checkpoint.same_order(found.marker, config, tokens=tokens):
        return found
    # What was left out by number there is another batch here.
    return Checkpoint(found.folder, msgspec.structs.replace(found.marker, skipped=[]))


def take_up(run: Run, found: Checkpoint | None) -> Course:
    """The course that `found` holds, or a new one; the engine is then there too. Every rank calls
    it. NotWhatWasSaved where the weights that were read foretell otherwise than those saved."""
    config, engine = run.config, run.engine
    skipped = run.agreed(lambda: read_skipped(run.folder))
    if found is None:
        return Course(skipped=skipped)
    marker = found.marker
    with parts.opened(found.folder) as read:
        engine.load(read, marker.applied)
        parts.restore_random(read, engine.rank, config.seed)
    _require_same(run, found)
    if engine.rank == 0:
        _log.info("going on after step %d of %d", marker.step, config.steps)
    return Course(marker.step, marker.applied, skipped | set(marker.skipped))


def save(run: Run, course: Course, saver: Saver, buffers: parts.Buffers) -> None:
    """Begin a checkpoint; it is whole when `saver` has written it. Every rank calls it. NoNumber
    where the model's loss is none."""
    config, engine, folder, step = run.config, run.engine, run.folder, course.step
    saver.wait()
    marker = _marker(run, course)
    if engine.rank == 0:
        checkpoint.begin(folder, step)
    engine.barrier()
    tensors = buffers.copy(engine.state()) | parts.random_state(engine.rank)

    def seal(written: dict[str, str]) -> None:
        checkpoint.seal(
            checkpoint.unfinished_folder(folder, step),
            msgspec.structs.replace(marker, files=written),
        )
        checkpoint.prune(folder, config.keep_checkpoints, step, config.keep_every)

    saver.start(checkpoint.unfinished_folder(folder, step), tensors, seal)


def kept(folder: Path) -> str:
    """What there is to begin again from, in words."""
    if checkpoint.steps(folder):
        return f"{folder} keeps the last checkpoint before it"
    return "there was no checkpoint yet"


def read_skipped(folder: Path) -> set[int]:
    """The batches that this run leaves out, whether or not a checkpoint knows of it."""
    path = folder / _SKIPPED
    return set(files.read(path, list[int])) if path.exists() else set()


def write_skipped(folder: Path, skipped: Iterable[int]) -> None:
    """Put them down, before the run goes back to where it would meet them again."""
    files.write(folder / _SKIPPED, msgspec.json.encode(sorted(skipped)))


def _look(run: Run) -> tuple[bool, Checkpoint | None]:
    """The checkpoint, and whether it is the run's own."""
    found = checkpoint.resume(run.folder)
    if found is None and run.config.fork:
        return False, checkpoint.forked(run.config.fork)
    return True, found


def _marker(run: Run, course: Course) -> Marker:
    config = run.config
    return Marker(
        step=course.step,
        applied=course.applied,
        samples=course.step * config.batch_windows(),
        skipped=sorted(course.skipped),
        world=run.engine.world,
        zero_stage=config.zero_stage,
        device=_device(),
        manner=_manner(run),
        tokens=run.train.identity,
        manifest=run.manifest,
        settings=msgspec.to_builtins(config),
        trained=config.trained(),
        sizes=config.sizes(),
        probe=_probe(run, course.step),
        files={},
    )


def _probe(run: Run, step: int) -> Probe:
    ids = run.train.window(0, run.context).tolist()
    loss = _loss(run, ids)
    if not math.isfinite(loss):  # JSON has no word for it: nobody could read the checkpoint
        raise NoNumber(
            f"step {step}: not saved, the loss of the first window of the tokens is {loss}; lower "
            f"training.learning_rate; {kept(run.folder)}"
        )
    return Probe(ids=ids, loss=loss)


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _manner(run: Run) -> dict[str, Any]:
    """Other kernels, or in other shapes, add up in another order; and bf16 rounds then."""
    config = run.config
    return {
        "torch": str(torch.__version__),
        "precision": config.precision,
        "compile": config.compile,
        "deterministic": config.deterministic,
        "micro": run.micro,
    }


def _require_same(run: Run, found: Checkpoint) -> None:
    marker = found.marker
    stored, loss = marker.probe.loss, _loss(run, marker.probe.ids)
    its = marker.world, marker.zero_stage, marker.device, marker.manner
    same = its == (run.engine.world, run.config.zero_stage, _device(), _manner(run)) and (
        marker.device == "cpu" or run.config.deterministic
    )
    # A fork may compute in another precision than its source; the coarser one tells them apart.
    precisions: set[Any] = {run.config.precision, marker.trained.get("precision")}
    share = _SAME if same else max(_NEARLY.get(each, 0.0) for each in precisions)
    # Not "greater": what is not a number is no loss either.
    if not abs(loss - stored) <= share * stored:
        raise NotWhatWasSaved(
            f"{found.folder}: its probe has loss {loss:.6f}, but {stored:.6f} when it was saved, "
            "though its files are whole; move it away to go on from the one before"
        )


def _loss(run: Run, ids: list[int]) -> float:
    window = np.array([ids], dtype=np.int64)
    # As large as all other batches: another shape would be compiled for itself.
    return run.engine.evaluate([loader.batch(window, run.config.sizes(), run.micro)])
