"""How far a run is: taken up from a checkpoint, saved to one.

Invariant: a course taken up from a checkpoint goes on as if it had never stopped; bit for bit with
as many ranks at the same ZeRO stage, within rounding otherwise.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from training import checkpoint, files, loader, parts
from training.checkpoint import Checkpoint, Marker, Probe
from training.run import Run
from training.saver import Saver

_SKIPPED = "skipped.json"
_NEARLY = {"fp32": 1e-4, "bf16": 1e-2}
"""Shares of a loss by which it may differ from itself on another device or in another batch."""
_log = logging.getLogger(__name__)


class NotWhatWasSaved(RuntimeError):
    """A checkpoint whose files are whole gives another model than the one that was saved."""


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
    one to fork from, if any. Every rank calls it.

    BadInput where settings or tokens are not those of the checkpoint.
    """
    found = run.agreed(checkpoint.resume(run.folder) if run.engine.rank == 0 else None)
    if found is not None:
        checkpoint.refuse_foreign(found, run.config, tokens=run.train.identity)
    elif run.config.fork:
        found = checkpoint.forked(run.config.fork)
        checkpoint.refuse_fork(found, run.config)
    return found


def take_up(run: Run, found: Checkpoint | None) -> Course:
    """The course that `found` holds, or a new one; the engine is then there too. Every rank calls
    it. NotWhatWasSaved where the weights that were read foretell otherwise than those saved."""
    config, engine = run.config, run.engine
    skipped = read_skipped(run.folder)
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
    """Begin a checkpoint; it is whole when `saver` has written it. Every rank calls it."""
    config, engine, folder, step = run.config, run.engine, run.folder, course.step
    saver.wait()
    if engine.rank == 0:
        checkpoint.begin(folder, step)
    engine.barrier()
    marker = _marker(run, course)
    tensors = buffers.copy(engine.state()) | parts.random_state(engine.rank)

    def seal(written: dict[str, str]) -> None:
        checkpoint.seal(
            checkpoint.unfinished_folder(folder, step),
            msgspec.structs.replace(marker, files=written),
        )
        checkpoint.prune(folder, config.keep_checkpoints, step, config.keep_every)

    saver.start(checkpoint.unfinished_folder(folder, step), tensors, seal)


def read_skipped(folder: Path) -> set[int]:
    """The batches that this run leaves out, whether or not a checkpoint knows of it."""
    path = folder / _SKIPPED
    return set(msgspec.json.decode(path.read_bytes(), type=list[int])) if path.exists() else set()


def write_skipped(folder: Path, skipped: Iterable[int]) -> None:
    """Put them down, before the run goes back to where it would meet them again."""
    files.write(folder / _SKIPPED, msgspec.json.encode(sorted(skipped)))


def _marker(run: Run, course: Course) -> Marker:
    ids = run.train.window(0, run.context).tolist()
    return Marker(
        step=course.step,
        applied=course.applied,
        samples=course.step * run.config.batch_windows(),
        skipped=sorted(course.skipped),
        world=run.engine.world,
        zero_stage=run.config.zero_stage,
        tokens=run.train.identity,
        manifest=run.manifest,
        settings=run.config,
        probe=Probe(ids=ids, loss=_loss(run, ids)),
        files={},
    )


def _require_same(run: Run, found: Checkpoint) -> None:
    stored, loss = found.marker.probe.loss, _loss(run, found.marker.probe.ids)
    # Not "greater": what is not a number is no loss either.
    if not abs(loss - stored) <= _NEARLY[run.config.precision] * stored:
        raise NotWhatWasSaved(
            f"{found.folder}: its probe has loss {loss:.6f}, but {stored:.6f} when it was saved, "
            "though its files are whole; move it away to go on from the one before"
        )


def _loss(run: Run, ids: list[int]) -> float:
    window = np.array([ids], dtype=np.int64)
    # As large as all other batches: another shape would be compiled for itself.
    return run.engine.evaluate([loader.batch(window, run.config.sizes(), run.micro)])
