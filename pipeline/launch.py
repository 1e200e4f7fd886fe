"""`webtext train`, `evaluate`, `generate` and `export`: the run's tokens, the folder of their
training, and who runs it."""

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from pipeline import current, lease, progress, torchrun, trainings
from pipeline.config import Config
from pipeline.current import Shards
from pipeline.failures import BadInput, GangFailed
from pipeline.store import write_json
from training import batches, checkpoint, leave, metrics, refusal, tokens, watchdog
from training.checkpoint import Checkpoint
from training.config import CPU_RANK_ENVIRONMENT, TrainingConfig

Job = dict[str, Any]
Ask = Callable[[], None]
_log = logging.getLogger(__name__)


def train(config: Config, *, address: str | None, local: bool) -> str:
    """Train until the last step, or until asked to leave; a line that says where the model lies."""
    training, found = config.training, current.shards(config)
    folder, last = current.training(config, found), training.last_step()
    at = checkpoint.newest(folder)
    if at and at.marker.step >= last:
        return f"{folder}: trained to step {at.marker.step} already"
    _check(training, found, at)
    _tell_others(config, folder)
    staged = msgspec.structs.replace(training, staging=str(current.staged(config)))
    job = {
        "training": msgspec.to_builtins(staged),
        "tokens": found.named,
        "folder": str(folder),
        "manifest": found.manifest,
    }
    began = time.time()
    with lease.hold(folder, "train"), progress.training(folder, last, told=not local):
        refusal.clear(folder)
        leave.clear(folder)
        try:
            if local:
                _torchrun(training, job, folder)
            else:
                _gang(config, job, address, folder)
        except GangFailed:
            _raise_hung(folder, began)
            raise
        finally:
            _raise_refused(folder)  # it says more than how the ranks ended
    return _outcome(folder, training)


def evaluate(config: Config) -> dict[str, Any]:
    """Loss and perplexity of the newest checkpoint on the held-out split."""
    from training.evaluate import evaluate as measure

    shards = current.shards(config)
    folder = current.training(config, shards)
    found = measure(str(folder), str(shards.folder), config.training)
    try:
        write_json(folder / "evaluation.json", found)
    except OSError as error:  # it took a while to find out, and is told in any case
        _log.warning("not kept for the report: %s: %s", error.filename, error.strerror)
    return found


def generate(config: Config, prompt: str, seed: int) -> str:
    """The prompt and what the newest checkpoint writes after it."""
    from training.generate import generate as sample

    return sample(str(current.trained(config)), prompt, config.training, seed)


def export(config: Config, folder: Path) -> str:
    """Write the newest checkpoint's weights as a Hugging Face folder; a line that says so."""
    from training import huggingface
    from training.evaluate import open_model

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder}: is there already, and not an empty folder; name another")
    model, step = open_model(str(current.trained(config)), config.training)
    huggingface.save(model.cpu(), folder)
    return f"{folder}: the weights after step {step}, for transformers or anything that reads it"


def rank(job: Job) -> None:
    """One rank of the training; `job` as in `training.rank.Job`."""
    from training import rank as one

    one.run(msgspec.convert(job, one.Job))


def _check(training: TrainingConfig, found: Shards, at: Checkpoint | None) -> None:
    """BadInput here, before any process starts, not in each of them."""
    train_split = tokens.open_split(found.folder, "train")
    batches.require_window(train_split, training.sizes().context, "tokens")
    if at:
        checkpoint.refuse_foreign(at, training, tokens=train_split.identity)
    elif training.fork:
        checkpoint.refuse_fork(checkpoint.forked(training.fork), training)


def _tell_others(config: Config, folder: Path) -> None:
    """That a run begins anew, where other tokens or settings have one: that may not be meant."""
    others = trainings.others(config.root, folder)
    if others and not folder.exists():
        _log.warning(
            "a run of its own: the %d that are there have other tokens or settings (`webtext "
            "status` shows them)", others,
        )  # fmt: skip


def _gang(config: Config, job: Job, address: str | None, folder: Path) -> None:
    import torch  # noqa: F401  -- an absent extra is told before Ray starts

    from pipeline import cluster, gang

    cpus = max(config.workers or os.cpu_count() or 1, config.training.ranks)
    with cluster.connected(address, cpus) as own:
        gpus = _gpus(config.training, gang.gpus(), own)
        gang.run(
            rank, job, config.training.world(gpus), str(folder / "ray"),
            use_gpu=gpus > 0, cpu_environment=CPU_RANK_ENVIRONMENT, ask=_ask(folder),
            timeout_s=config.training.collective_timeout_s(),
        )  # fmt: skip


def _torchrun(training: TrainingConfig, job: Job, folder: Path) -> None:
    gpus = _gpus(training, torchrun.gpus(), own=True)
    path = folder / "job.json"
    write_json(path, job)
    environment = {leave.LAUNCHED: "1"} | ({} if gpus else CPU_RANK_ENVIRONMENT)
    status = leave.AGAIN
    while status == leave.AGAIN:
        status = torchrun.run(
            "training.rank", path, training.world(gpus), environment, _ask(folder)
        )
    if status not in (0, leave.SAVED):
        raise GangFailed(f"{_said(status)}; the same command goes on from the last checkpoint")


def _said(status: int) -> str:
    """What the status of a process that failed says, a shell's or Popen's."""
    number = -status if status < 0 else status - 128
    if number in {each.value for each in signal.Signals}:
        return f"a rank, or what starts them, was ended by {signal.Signals(number).name}"
    return f"a rank ended with status {status}, see above"


def _ask(folder: Path) -> Ask:
    def ask() -> None:
        leave.ask(folder)
        click.echo("saving; once more ends it at once, from its last checkpoint on", err=True)

    return ask


def _raise_refused(folder: Path) -> None:
    told = refusal.read(folder)
    if told:
        raise BadInput(told.says) if told.input else GangFailed(told.says)


def _raise_hung(folder: Path, began: float) -> None:
    stacks = watchdog.hung(folder, began)
    if stacks:
        raise GangFailed(
            f"no step was finished for training.guard.hang_s; where ranks hung is in {stacks[0]}; "
            "the same command goes on from the last checkpoint"
        )


def _outcome(folder: Path, training: TrainingConfig) -> str:
    first = metrics.first(folder)
    if first is None:
        return f"left before the first step of {training.steps}; the same command goes on"
    (final,) = metrics.tail(folder, 1)
    if final["step"] < training.last_step():
        return f"left after step {final['step']} of {training.steps}; the same command goes on"
    return (
        f"trained to step {final['step']} of {training.steps}: loss "
        f"{first['loss']:.3f} -> {final['loss']:.3f}, {final['tokens']:,} tokens; {folder}"
    )


def _gpus(config: TrainingConfig, there: int, own: bool) -> int:
    """How many of the GPUs that are there the ranks may use. `own`: they are this machine's, and
    our torch is theirs, which may be built for CPUs."""
    if config.device == "cpu":
        return 0
    usable = min(there, torchrun.gpus()) if own else there
    if usable < there:
        _log.warning("this torch can use %d of %d GPUs", usable, there)
    return usable
