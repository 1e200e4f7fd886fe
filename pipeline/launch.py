"""`webtext train`, `evaluate` and `generate`: the run's tokens, the folder of their training, and
who runs it."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pipeline import current, lease, progress, torchrun
from pipeline.config import Config
from pipeline.failures import BadInput, GangFailed
from pipeline.store import Dataset, write_json
from training import batches, checkpoint, metrics, refusal, tokens
from training.config import CPU_RANK_ENVIRONMENT, TrainingConfig

Job = dict[str, Any]
Check = Callable[[int], None]
_log = logging.getLogger(__name__)


def train(config: Config, *, address: str | None, local: bool) -> str:
    """Train until the last step; a line that says where the model lies."""
    dataset = _tokens(config)
    folder = current.training(config, dataset)
    last = config.training.last_step()
    found = checkpoint.newest(folder)
    if found and found.marker.step >= last:
        return f"{folder}: trained to step {found.marker.step} already"
    train_split = tokens.open_split(dataset.folder, "train")
    batches.require_window(train_split, config.training.sizes().context, "tokens")
    job = {
        "training": msgspec.to_builtins(config.training),
        "tokens": str(dataset.folder),
        "folder": str(folder),
    }

    def check(ranks: int) -> None:
        """BadInput here, before any process starts, not in each of them."""
        config.training.micro_windows(ranks)
        if found:
            identity = train_split.identity
            checkpoint.refuse_foreign(found, config.training, world=ranks, tokens=identity)

    with lease.hold(folder, "train"), progress.training(folder / "metrics.jsonl", last):
        refusal.clear(folder)
        try:
            if local:
                _torchrun(config.training, job, check)
            else:
                _gang(config, job, address, check)
        finally:
            _raise_refusal(folder)  # it says more than how the ranks ended
    lines = metrics.read(folder)
    first, final = lines[0], lines[-1]
    return (
        f"trained to step {final['step']} of {config.training.steps}: loss "
        f"{first['loss']:.3f} -> {final['loss']:.3f}, {final['tokens']:,} tokens; {folder}"
    )


def evaluate(config: Config) -> dict[str, Any]:
    """Loss and perplexity of the newest checkpoint on the held-out split."""
    from training.evaluate import evaluate as measure

    dataset = _tokens(config)
    folder = current.training(config, dataset)
    found = measure(str(folder), str(dataset.folder), config.training)
    write_json(folder / "evaluation.json", found)
    return found


def generate(config: Config, prompt: str, seed: int) -> str:
    """The prompt and what the newest checkpoint writes after it."""
    from training.generate import generate as sample

    folder = current.training(config, current.run(config)["tokens"])
    return sample(str(folder), prompt, config.training, seed)


def _tokens(config: Config) -> Dataset:
    """The tokens, all of them: a training is named by what its manifest says is there."""
    dataset = current.run(config)["tokens"]
    dataset.require_files()
    return dataset


def _gang(config: Config, job: Job, address: str | None, check: Check) -> None:
    import torch  # noqa: F401  -- an absent extra is told before Ray starts

    from pipeline import cluster, gang

    cpus = max(config.workers or os.cpu_count() or 1, config.training.ranks)
    with cluster.connected(address, cpus) as own:
        gpus = _gpus(config.training, gang.gpus(), own)
        ranks = config.training.world(gpus)
        check(ranks)
        gang.run(
            rank, job, ranks, str(Path(job["folder"]) / "ray"),
            use_gpu=gpus > 0, cpu_environment=CPU_RANK_ENVIRONMENT,
        )  # fmt: skip


def rank(job: Job) -> None:
    """One rank of the training; `job` as in `training.zero.Job`."""
    from training import zero

    zero.run(msgspec.convert(job, zero.Job))


def _raise_refusal(folder: Path) -> None:
    told = refusal.read(folder)
    if told:
        raise BadInput(told.says) if told.input else GangFailed(told.says)


def _torchrun(config: TrainingConfig, job: Job, check: Check) -> None:
    gpus = _gpus(config, torchrun.gpus(), own=True)
    ranks = config.world(gpus)
    check(ranks)
    path = Path(job["folder"]) / "job.json"
    write_json(path, job)
    torchrun.run("training.zero", path, ranks, {} if gpus else CPU_RANK_ENVIRONMENT)


def _gpus(config: TrainingConfig, there: int, own: bool) -> int:
    """How many of the GPUs that are there the ranks may use. `own`: they are this machine's, and
    our torch is theirs, which may be built for CPUs."""
    if config.device == "cpu":
        return 0
    usable = min(there, torchrun.gpus()) if own else there
    if usable < there:
        _log.warning("this torch can use %d of %d GPUs", usable, there)
    return usable
