"""`webtext train`, `evaluate` and `generate`: the run's tokens, the folder of their training, and
who runs it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pipeline import current, lease, manifest, progress, torchrun
from pipeline.config import Config
from pipeline.failures import BadInput, GangFailed
from pipeline.store import Dataset, read_json, write_json
from training import batches, checkpoint, metrics, tokens
from training.config import CPU_RANK_ENVIRONMENT, TrainingConfig
from training.config import BadInput as TrainingBadInput

REFUSAL = "refused.json"
"""In the run's folder: why a rank would fail however often it is started."""

Job = dict[str, Any]
Check = Callable[[int], None]


def train(config: Config, *, address: str | None, local: bool) -> str:
    """Train until the last step; a line that says where the model lies."""
    dataset, folder = run_of(config)
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
        (folder / REFUSAL).unlink(missing_ok=True)
        if local:
            _torchrun(config.training, job, check)
        else:
            _gang(config, job, address, check)
    _raise_refusal(folder)
    lines = metrics.read(folder)
    first, final = lines[0], lines[-1]
    return (
        f"trained to step {final['step']} of {config.training.steps}: loss "
        f"{first['loss']:.3f} -> {final['loss']:.3f}, {final['tokens']:,} tokens; {folder}"
    )


def run_of(config: Config) -> tuple[Dataset, Path]:
    """The run's tokens and the folder of the training that these settings make of them."""
    dataset = current.run(config)["tokens"]
    written = {file.name: file.digest for file in dataset.manifest.files}
    content = manifest.root_hash(written)
    return dataset, checkpoint.run_folder(Path(config.root) / "training", config.training, content)


def evaluate(config: Config) -> dict[str, Any]:
    """Loss and perplexity of the newest checkpoint on the held-out split."""
    from training.evaluate import evaluate as measure

    dataset, folder = run_of(config)
    found = measure(str(folder), str(dataset.folder), config.training)
    write_json(folder / "evaluation.json", found)
    return found


def generate(config: Config, prompt: str, seed: int) -> str:
    """The prompt and what the newest checkpoint writes after it."""
    from training.generate import generate as sample

    _, folder = run_of(config)
    return sample(str(folder), prompt, config.training, seed)


def _gang(config: Config, job: Job, address: str | None, check: Check) -> None:
    import torch  # noqa: F401  -- an absent extra is told before Ray starts

    from pipeline import cluster, gang

    cpus = max(config.workers or os.cpu_count() or 1, config.training.ranks)
    with cluster.connected(address, cpus):
        ranks = config.training.world(gang.gpus())
        check(ranks)
        gang.run(rank, job, ranks, str(Path(job["folder"]) / "ray"), CPU_RANK_ENVIRONMENT)


def rank(job: Job) -> None:
    """One rank of the training; `job` as in `training.zero.Job`.

    What would fail again however often it is started anew is written down and told by the driver:
    the first rank to see it raises, so that the others do not wait for it, and the restarted
    gang finds it written.
    """
    from training import zero
    from training.loop import Diverged

    refusal = Path(job["folder"]) / REFUSAL
    if refusal.exists():
        return
    try:
        zero.train(msgspec.convert(job["training"], TrainingConfig), job["tokens"], job["folder"])
    except (TrainingBadInput, Diverged) as error:
        write_json(refusal, {"input": isinstance(error, TrainingBadInput), "says": str(error)})
        raise


def _raise_refusal(folder: Path) -> None:
    path = folder / REFUSAL
    if path.exists():
        told = read_json(path)
        raise BadInput(told["says"]) if told["input"] else GangFailed(told["says"])


def _torchrun(config: TrainingConfig, job: Job, check: Check) -> None:
    ranks = config.world(torchrun.gpus())
    check(ranks)
    path = Path(job["folder"]) / "job.json"
    write_json(path, job)
    torchrun.run("training.zero", path, ranks, CPU_RANK_ENVIRONMENT)
