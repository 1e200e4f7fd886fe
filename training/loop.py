"""The training loop: which batch, its loss, a step; now and then look, save; write a line.

Knows nothing of DeepSpeed or of ranks beyond its own number. Batch and learning rate of a step
follow from its number alone.
"""

import logging
import math
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training import batches, fit, flops, guard, loader, metrics, parts, spikes, watchdog
from training.board import Board
from training.config import TrainingConfig
from training.course import Course, kept, newest, save, take_up, write_skipped
from training.engine import Batch, Step
from training.run import Run
from training.saver import Saver
from training.schedule import learning_rate

Line = dict[str, Any]
Progress = Callable[[Line], None]
"""Told of each step: its line of metrics.jsonl."""

_log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """The loss or the gradient is no longer a number; nothing after it was saved."""


class OutOfMemory(RuntimeError):
    """A pass of `micro` windows does not fit into the memory of a rank's device."""

    def __init__(self, micro: int, rank: int) -> None:
        super().__init__(f"{micro} windows at once do not fit into the memory of rank {rank}")
        self.micro, self.rank = micro, rank

    def __reduce__(self) -> tuple[type["OutOfMemory"], tuple[int, int]]:
        """For Ray, which carries it to who waits: an exception is made anew of its words alone."""
        return type(self), (self.micro, self.rank)


@dataclass
class _Tools:
    """What a rank holds open while it trains."""

    ahead: loader.Ahead
    saver: Saver
    buffers: parts.Buffers
    alive: Callable[[], None]
    lines: metrics.Writer | None
    board: Board | None
    measure: guard.Spikes
    in_a_row: int = 0
    """Steps not applied, one after the other, up to now."""
    stalled_s: float = 0.0
    """Seconds that saving took since the last step."""


def train(run: Run, progress: Progress | None = None) -> bool:
    """Train from where the run stands to its last step; every rank calls it. False where it was
    asked to leave before: then a checkpoint of just that step is there.

    BadInput where settings, tokens and checkpoint do not fit; Diverged where the loss is lost;
    OutOfMemory where `run.micro` windows are too many; OSError where a disk fails.
    """
    check(run)
    found, left = newest(run), False
    with _memory(run):
        course = take_up(run, found)
    while course.step < run.config.last_step() and not left:
        # Opened anew where a spike was rolled back: all of them know how far the run is.
        with _tools(run, course) as tools:
            course, left = _go_on(run, course, tools, progress)
            tools.saver.wait()
            run.engine.barrier()  # nobody leaves before the last checkpoint is sealed
    return not left


def check(run: Run) -> None:
    """BadInput where this run cannot begin, before any time is spent on it; what is strange about
    it goes to the log."""
    windows = batches.require_window(run.train, run.context, "training tokens")
    if run.engine.rank:
        return
    epochs = run.config.steps * run.config.batch_windows() / windows
    if epochs > 1:
        _log.warning("training.steps reads the %d tokens %.1f times", len(run.train), epochs)
    if not run.validation.windows(run.context):
        _log.warning("no validation loss: %d tokens are less than a window", len(run.validation))


def share(run: Run, number: int) -> list[Batch]:
    """This rank's part of batch `number`, in forward passes."""
    numbers = batches.step_windows(
        run.config.seed, number, run.config.batch_windows(), run.train.windows(run.context)
    )
    mine = batches.passes(numbers, run.engine.rank, run.engine.world, run.micro)
    return loader.tables(run.train, mine, run.config.sizes(), run.micro)


def validation_share(run: Run) -> list[Batch]:
    """This rank's part of the first windows of the validation split, the same at every look."""
    windows = min(run.config.evaluate_windows, run.validation.windows(run.context))
    numbers = np.arange(windows, dtype=np.int64)
    mine = batches.passes(numbers, run.engine.rank, run.engine.world, run.micro)
    return loader.tables(run.validation, mine, run.config.sizes(), run.micro)


def _go_on(
    run: Run, course: Course, tools: _Tools, progress: Progress | None
) -> tuple[Course, bool]:
    """Steps up to the last, a request to leave, or a rollback; how far it is, and whether to
    leave."""
    last = run.config.last_step()
    while course.step < last:
        number = batches.batch_number(course.step, course.skipped)
        line = _step(run, course, tools)
        found = tools.measure.look(line)
        if tools.lines is not None:
            tools.lines.write(line)
            if tools.board is not None:
                tools.board.write(line)
            if progress is not None:
                progress(line)
        if found and run.engine.rank == 0:
            spikes.tell(run, number, line, found)
        if found and run.config.guard.rollback and (before := _rolled_back(run, tools, number)):
            return before, False
        left = run.engine.any(run.asked())
        if left or course.step == last or _saves(run.config, course.step):
            _save(run, course, tools)
        if left:
            return course, course.step < last
    return course, False


def _step(run: Run, course: Course, tools: _Tools) -> Line:
    """One step, and its line."""
    config, began = run.config, run.clock()
    rate = learning_rate(course.step, config)
    number, then = (batches.batch_number(course.step + n, course.skipped) for n in (0, 1))
    mine = tools.ahead.take(number, then)
    waited = run.clock() - began
    with _memory(run):
        found = run.engine.step(mine, config.batch_tokens, rate)
    course.step += 1
    course.applied += found.applied
    tools.in_a_row = 0 if found.applied else tools.in_a_row + 1
    _require_number(run, course, found, tools.in_a_row)
    line = _line(run, course, found, rate, run.clock() - began)
    line |= {"data_wait_s": waited, "checkpoint_stall_s": tools.stalled_s}
    tools.stalled_s = 0.0
    if _due(course.step, config.evaluate_every) and run.validation.windows(run.context):
        with _memory(run):
            line["validation_loss"] = run.engine.evaluate(validation_share(run))
    tools.saver.check()
    tools.alive()
    return line


def _rolled_back(run: Run, tools: _Tools, number: int) -> Course | None:
    """The course of the newest checkpoint, but without batch `number`; None where there is none
    any more."""
    tools.saver.wait()
    run.engine.barrier()  # it may be rank 0's only now
    found = newest(run)
    if found is None:
        if run.engine.rank == 0:
            _log.warning("there is no checkpoint to go back to: going on")
        return None
    with _memory(run):
        before = take_up(run, found)
    before.skipped.add(number)
    place = batches.batch_number(found.marker.step, found.marker.skipped)
    if sum(each >= place for each in before.skipped) > run.config.guard.rollbacks:
        raise Diverged(
            f"{found.folder}: {run.config.guard.rollbacks} batches after it were left out, and it "
            f"spikes again at batch {number}. Lower training.learning_rate, or raise "
            "training.guard.z_score or training.guard.rollbacks"
        )
    if run.engine.rank == 0:
        write_skipped(run.folder, before.skipped)
    return before


def _save(run: Run, course: Course, tools: _Tools) -> None:
    began = run.clock()
    if tools.lines is not None:
        tools.lines.sync()  # a checkpoint must not know of steps that they do not
    with _memory(run):
        save(run, course, tools.saver, tools.buffers)
    tools.stalled_s += run.clock() - began
    tools.alive()


@contextmanager
def _tools(run: Run, course: Course) -> Iterator[_Tools]:
    engine, config = run.engine, run.config
    run.folder.mkdir(parents=True, exist_ok=True)
    window = config.guard.window
    before = run.agreed(lambda: metrics.tail(run.folder, window, course.step, guard.counts))
    with ExitStack() as stack:
        hold, first = stack.enter_context, engine.rank == 0
        # First, so that it watches over how all others end.
        alive = hold(watchdog.watched(run.folder, engine.rank, config.guard.hang_s))
        yield _Tools(
            alive=alive,
            ahead=hold(loader.Ahead(lambda number: share(run, number))),
            saver=hold(Saver(engine.rank, engine.world)),
            buffers=parts.Buffers(engine.rank, engine.world),
            lines=hold(metrics.Writer(run.folder, course.step)) if first else None,
            board=hold(Board(run.folder, course.step)) if first and config.tensorboard else None,
            measure=guard.Spikes(config.guard, before),
        )


def _line(run: Run, course: Course, found: Step, rate: float, seconds: float) -> Line:
    config = run.config
    per_second = config.batch_tokens / seconds if seconds > 0 else 0.0
    work = per_second * flops.per_token(config.sizes())
    return {
        "step": course.step,
        "loss": found.loss,
        "lr": rate,
        "grad_norm": found.grad_norm if found.applied else None,
        "tokens": course.step * config.batch_tokens,
        "tokens_per_s": per_second,
        "seconds": seconds,
        "mfu": work / run.peak if run.peak else None,
        "memory_bytes": _memory_bytes(),
        "applied": found.applied,
        "steps_not_applied": course.step - course.applied,
    }


def _require_number(run: Run, course: Course, found: Step, in_a_row: int) -> None:
    if math.isfinite(found.loss) and in_a_row <= run.config.guard.skips:
        return
    raise Diverged(
        f"step {course.step}: loss {found.loss}, gradient norm {found.grad_norm}, {in_a_row} steps "
        "in a row without a finite gradient. Lower training.learning_rate or raise "
        f"training.warmup_steps; {kept(run.folder)}"
    )


@contextmanager
def _memory(run: Run) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not fit.is_full(error):
            raise
        raise OutOfMemory(run.micro, run.engine.rank) from error


def _memory_bytes() -> int:
    """The most that this process has held: on its GPU where it has one, else of the host's."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _saves(config: TrainingConfig, step: int) -> bool:
    """Whether there is a checkpoint of this step in any case. No spike is seen before the window is
    full: with one of its last step there always is one to go back to, in every course the same."""
    first = config.guard.rollback and step == config.guard.window
    return first or _due(step, config.checkpoint_every)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
