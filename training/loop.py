"""The training loop: where are we, batch, loss, step; now and then look, save; write a line.

Knows nothing of DeepSpeed or of ranks beyond its own number. What a run has done is one integer,
the count of its steps: batch and learning rate follow from it.
"""

import errno
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from training import batches, checkpoint, metrics
from training.config import BadInput, TrainingConfig
from training.engine import Batch, Engine, Step
from training.schedule import learning_rate
from training.tokens import Tokens

Progress = Callable[[int, float, float], None]
"""Told of each step: its number (from 1), its loss, tokens per second."""

_ENGINE = "engine"
_FULL_BYTES = 1 << 20
"""A disk that has less left could not take what torch wrote."""
_log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """The loss or the gradient is no longer a number; nothing after it was saved."""


@dataclass(frozen=True)
class Run:
    """One run, as this rank sees it."""

    config: TrainingConfig
    engine: Engine
    train: Tokens
    validation: Tokens
    folder: Path
    clock: Callable[[], float] = time.perf_counter
    """Seconds from anywhere; only tokens_per_s and seconds in the metrics depend on it."""


def train(run: Run, resume: checkpoint.Checkpoint | None, progress: Progress | None = None) -> None:
    """Train from `resume` (or the first weights) to the last step; every rank calls it.

    BadInput where settings, tokens and checkpoint do not fit; Diverged where the loss is lost.
    """
    config, engine = run.config, run.engine
    check(run)
    done = 0
    if resume is not None:
        checkpoint.refuse_foreign(resume, config, world=engine.world, tokens=run.train.identity)
        engine.load(resume.folder / _ENGINE)
        done = resume.marker.step
        _log.info("going on after step %d of %d", done, config.steps)
    with metrics.Writer(run.folder, done) if engine.rank == 0 else nullcontext() as lines:
        for step in range(done, config.last_step()):
            began = run.clock()
            rate = learning_rate(step, config)
            found = engine.step(micro_batches(run, step), rate)
            _require_number(found, step + 1, run.folder)
            seconds = run.clock() - began
            line = _line(config, step + 1, found, rate, seconds)
            if _due(step + 1, config.evaluate_every) and run.validation.windows(_context(run)):
                line["validation_loss"] = engine.evaluate(validation_batches(run))
            if lines is not None:
                lines.write(line)
            if _due(step + 1, config.checkpoint_every) or step + 1 == config.last_step():
                if lines is not None:
                    lines.sync()
                save(run, step + 1)
            if lines is not None and progress is not None:
                progress(step + 1, found.loss, line["tokens_per_s"])


def check(run: Run) -> None:
    """BadInput where this run cannot begin, before any time is spent on it."""
    run.config.micro_windows(run.engine.world)
    windows = batches.require_window(run.train, _context(run), "training tokens")
    epochs = run.config.steps * run.config.batch_windows() / windows
    if epochs > 1 and run.engine.rank == 0:
        _log.warning("training.steps reads the %d tokens %.1f times", len(run.train), epochs)
    if not run.validation.windows(_context(run)) and run.engine.rank == 0:
        _log.warning("no validation loss: %d tokens are less than a window", len(run.validation))


def micro_batches(run: Run, step: int) -> list[Batch]:
    """This rank's share of a step, cut into forward passes."""
    config, engine = run.config, run.engine
    windows = run.train.windows(_context(run))
    numbers = batches.rank_windows(
        config.seed, step, config.batch_windows(), windows, engine.rank, engine.world
    )
    return _batches(run, run.train, numbers.tolist())


def validation_batches(run: Run) -> list[Batch]:
    """The first windows of the validation split, the same at every look and on every rank."""
    windows = min(run.config.evaluate_windows, run.validation.windows(_context(run)))
    micro = run.config.micro_windows(run.engine.world)
    # Batches of one size, so that the mean of their losses is the mean over tokens.
    whole = windows - windows % min(micro, windows)
    return _batches(run, run.validation, list(range(whole)))


def save(run: Run, step: int) -> None:
    """Write a checkpoint: every rank its files, then rank 0 seals it."""
    config, engine = run.config, run.engine
    unfinished = checkpoint.unfinished_folder(run.folder, step)
    if engine.rank == 0:
        checkpoint.begin(run.folder, step)
        (unfinished / _ENGINE).mkdir()
    engine.barrier()
    weights = engine.weights()
    with _disk(unfinished):
        engine.save(unfinished / _ENGINE)
        if engine.rank == 0:
            torch.save(weights, unfinished / checkpoint.WEIGHTS)
    engine.barrier()
    if engine.rank == 0:
        checkpoint.seal(
            unfinished, step=step, world=engine.world, tokens=run.train.identity, settings=config
        )
        checkpoint.prune(run.folder, config.keep_checkpoints, step)
    engine.barrier()


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """torch tells a full disk as a RuntimeError of many lines; as an OSError of one it is known."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        # Another rank to whom the disk was full has deleted it; nobody else does meanwhile.
        full = not folder.exists() or shutil.disk_usage(folder.parent).free < _FULL_BYTES
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, f"could not be written: {first}", str(folder)) from error


def _batches(run: Run, tokens: Tokens, numbers: Sequence[int]) -> list[Batch]:
    micro, vocabulary = run.config.micro_windows(run.engine.world), run.config.sizes().vocabulary
    parts = []
    for start in range(0, len(numbers), micro):
        ids = batches.read(tokens, numbers[start : start + micro], _context(run))
        if ids.max() >= vocabulary:
            raise BadInput(
                f"training.model.vocabulary: is {vocabulary}, but the tokens hold id {ids.max()}"
            )
        table = torch.from_numpy(ids)
        parts.append((table[:, :-1].contiguous(), table[:, 1:].contiguous()))
    return parts


def _line(
    config: TrainingConfig, step: int, found: Step, rate: float, seconds: float
) -> dict[str, float]:
    return {
        "step": step,
        "loss": found.loss,
        "lr": rate,
        "grad_norm": found.grad_norm,
        "tokens": step * config.batch_tokens,
        "tokens_per_s": config.batch_tokens / seconds if seconds > 0 else 0.0,
        "seconds": seconds,
    }


def _require_number(found: Step, step: int, folder: Path) -> None:
    if not (math.isfinite(found.loss) and math.isfinite(found.grad_norm)):
        raise Diverged(
            f"step {step}: loss {found.loss}, gradient norm {found.grad_norm}. Lower "
            f"training.learning_rate or raise training.warmup_steps; {folder} keeps the last "
            "checkpoint before it"
        )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _context(run: Run) -> int:
    return run.config.sizes().context
