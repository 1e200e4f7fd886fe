"""One rank of a training: joins the others, opens what it needs, trains, says how it ended.

`run` is called on every rank, with RANK, LOCAL_RANK and WORLD_SIZE in the environment or a process
group that someone (Ray Train) has already made. Without Ray:

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m training.rank JOB.json

where JOB.json holds {"training": {...}, "tokens": "<folder or URI>", "folder": "<run folder>"}.
Exit status: 0 trained to the last step, SAVED asked to leave and did, AGAIN begin again with the
smaller micro-batch that is written down, 1 the training or a machine failed, 2 the input is wrong.
"""

import contextlib
import ctypes
import errno
import gc
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

if __name__ == "__main__" and sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
    # The system kills this rank when torch's launcher is gone, however it went: ranks have a
    # session of their own, so nothing else would. Before torch is imported, which takes seconds.
    _launcher = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0):  # PR_SET_PDEATHSIG
        raise OSError(ctypes.get_errno(), "prctl: this rank would outlive its launcher")
    if os.getppid() != _launcher:
        raise SystemExit("the launcher of this rank ended while it started")

from training.config import CPU_RANK_ENVIRONMENT, BadInput, TrainingConfig

if __name__ == "__main__" and len(sys.argv) == 2:
    # What is wrong with the file, if something is, `main` tells.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(Path(sys.argv[1]).read_bytes())["training"].get("device") == "cpu":
            os.environ.update(CPU_RANK_ENVIRONMENT)  # before torch looks for GPUs

import msgspec
import torch
from torch import distributed as dist

from training import (
    batches,
    checkpoint,
    files,
    fit,
    flops,
    leave,
    loop,
    refusal,
    status,
    tokens,
    zero,
)
from training.course import NotWhatWasSaved
from training.leave import AGAIN, LAUNCHED, SAVED
from training.model import build
from training.run import Run
from training.staging import stage

_T = TypeVar("_T")
_LOST = re.compile(r"Connection (closed|reset) by peer|Broken pipe|ncclRemoteError")
"""What gloo and NCCL say of a rank that is gone."""
_log = logging.getLogger(__name__)


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What JOB.json holds."""

    training: TrainingConfig
    """The resolved settings."""
    tokens: str
    """Folder or URI of the token files."""
    folder: str
    """The run's folder, which all ranks see: `checkpoint.run_folder` of the two above."""
    manifest: str = ""
    """Hash of the manifest of the tokens, where they have one."""


def run(job: Job, progress: loop.Progress | None = None) -> bool:
    """Train, go on where the run stopped; False where it was asked to leave before its last step.

    What would fail again however often it is started anew is written down first, and nothing is
    done where that has been: of a gang that is restarted no rank waits for another that was
    refused. BadInput, `loop.Diverged`, NotWhatWasSaved and OSError as `loop.train`; OutOfMemory
    where all ranks should be started again, which then fit.
    """
    folder = Path(job.folder)
    if refusal.read(folder):
        return False
    try:
        with _compiler():
            return _train(job, folder, progress)
    except loop.OutOfMemory as error:
        with _refused(folder):
            tried = fit.halve(folder, job.training, dist.get_world_size(), error.micro)
        _log.warning("%s; beginning again with %d", error, tried)
        raise
    except (BadInput, loop.Diverged, NotWhatWasSaved) as error:
        _refuse(folder, error)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _say_full(folder, error)
        raise


def main(arguments: Sequence[str]) -> int:
    """Run a Job file; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if len(arguments) != 1:
        _log.error("one argument: the JOB.json of the run")
        return 2
    try:
        job = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Job)
        launched = LAUNCHED in os.environ
        if not launched and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            refusal.clear(Path(job.folder))
            if os.environ.get("RANK", "0") == "0":  # another machine's may come late
                leave.clear(Path(job.folder))
        if run(job, None if launched else _tell(job.training)):
            return 0
        refused = refusal.read(Path(job.folder))
        return _status_of_leaving() if refused is None else 2 if refused.input else 1
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _log.error("%s: %s", arguments[0], error)
        return 2
    except (BadInput, FileNotFoundError) as error:
        _log.error("%s", error)
        return 2
    except loop.OutOfMemory:
        return AGAIN
    except OSError as error:
        place = error.filename2 or error.filename  # of a copy, the one on this machine
        _log.error("%s%s", f"{place}: " if place else "", error.strerror or error)
        return 1
    except (loop.Diverged, NotWhatWasSaved) as error:
        _log.error("%s", error)
        return 1
    except RuntimeError as error:
        lost = _LOST.search(str(error))
        if lost is None:
            raise
        _log.error("another rank ended, and so does this one (%s)", lost[0])
        return 1


def _status_of_leaving() -> int:
    """Torch's launcher, where it may start ranks again, would do so at any status but 0."""
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    return 0 if restarts else SAVED


def _train(job: Job, folder: Path, progress: loop.Progress | None) -> bool:
    device = _join_ranks(job.training)
    folder.mkdir(parents=True, exist_ok=True)
    rank = dist.get_rank()
    with _held(folder, device), _noted(folder, rank), leave.asked(folder, rank) as asked:
        try:
            found = _open(job, folder, device, asked)
        except RuntimeError as error:
            if not fit.is_full(error):
                raise
            raise BadInput(
                "training.model: it and its optimizer do not fit into the memory; take more ranks "
                "with a higher training.zero_stage, training.offload_optimizer, or a smaller one"
            ) from error
        if rank == 0:
            _record(found)
        # Modules and model are looked at no more: collecting garbage would take half a second.
        gc.freeze()
        return loop.train(found, progress)


def _open(job: Job, folder: Path, device: torch.device, asked: Callable[[], bool]) -> Run:
    config, world = job.training, dist.get_world_size()
    shards = stage(job.tokens, Path(config.staging or folder / "staging"))
    train, validation = (tokens.open_split(shards, split) for split in ("train", "validation"))
    # Before a model is made that cannot be trained.
    batches.require_window(train, config.sizes().context, f"tokens in {shards}")
    # Asked of one rank, as all that ranks must agree on: a network disk may show another nothing.
    fits = _from_first(lambda: fit.found(folder, config, world), device)
    micro = config.micro_windows(world, device.type, fits)
    model = build(config.sizes(), config.seed)
    return Run(
        config=config,
        engine=zero.ZeroEngine(config, model, device, micro),
        train=train,
        validation=validation,
        tokens_folder=shards,
        folder=folder,
        micro=micro,
        manifest=job.manifest,
        peak=flops.measured_peak(device, config.precision) * world,
        agreed=lambda make: _from_first(make, device),
        asked=asked,
    )


def _join_ranks(config: TrainingConfig) -> torch.device:
    """Be one of the process group that is there, or of one made here; this rank's device."""
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    # fp32 means fp32: no TF32, whatever torch's default is.
    torch.set_float32_matmul_precision("highest")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Else what is compiled adds up in the order that was quickest when it was tried out.
        import torch._inductor.config as compiler

        compiler.deterministic = True
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        timeout = timedelta(seconds=config.collective_timeout_s())
        if "RANK" in os.environ:
            dist.init_process_group(backend, timeout=timeout)
        else:  # alone; port 0 is any free one
            os.environ.setdefault("LOCAL_RANK", "0")
            address = "tcp://127.0.0.1:0"
            dist.init_process_group(backend, address, timeout, world_size=1, rank=0)
    zero.join(device)
    return device


@contextmanager
def _compiler() -> Iterator[None]:
    """torch tells in many lines, at the first step, that it cannot compile here."""
    try:
        yield
    except RuntimeError as error:
        found_by = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
        if not found_by or fit.is_full(error):
            raise
        told = [line for line in str(error).splitlines() if not line.startswith("backend=")]
        why = next(filter(None, told), type(error).__name__)
        raise BadInput(
            f"training.compile: nothing can be compiled here ({why}); install a C++ compiler, or "
            "set training.compile = false"
        ) from error


@contextmanager
def _noted(folder: Path, rank: int) -> Iterator[None]:
    """What rank 0 warns of in the block is also written down, for those who do not see it."""
    notes = logging.FileHandler(status.warnings(folder), delay=True)
    notes.setLevel(logging.WARNING)
    notes.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("training")
    if rank == 0:
        logger.addHandler(notes)
    try:
        yield
    finally:
        logger.removeHandler(notes)
        notes.close()


@contextmanager
def _held(folder: Path, device: torch.device) -> Iterator[None]:
    """Rank 0 holds the run's folder for the block; where it cannot, every rank says why."""
    with ExitStack() as stack:

        def hold() -> None:
            stack.enter_context(checkpoint.hold(folder))

        _from_first(hold, device)
        yield


def _from_first(make: Callable[[], _T], device: torch.device) -> _T:
    """What `make` gives on rank 0, which alone calls it, on every rank; or its error, on every
    rank: one that is raised alone leaves the others waiting."""
    made: list[tuple[Any, Exception | None]] = [(None, None)]
    if dist.get_rank() == 0:
        try:
            made = [(make(), None)]
        except Exception as error:  # noqa: BLE001  -- raised below, on this rank too
            made = [(None, error)]
    dist.broadcast_object_list(made, src=0, device=device)
    found, failed = made[0]
    if failed is not None:
        raise failed
    value: _T = found
    return value


def _record(found: Run) -> None:
    """Put down what the run is, resolved and derived."""
    config, world = found.config, found.engine.world
    records = {
        "settings.json": msgspec.json.encode(config),
        "deepspeed.json": msgspec.json.encode(zero.settings(config, world, found.micro)),
    }
    for name, content in records.items():
        files.write(found.folder / name, msgspec.json.format(content) + b"\n")


@contextmanager
def _refused(folder: Path) -> Iterator[None]:
    """Write down what the block refuses."""
    try:
        yield
    except BadInput as error:
        _refuse(folder, error)
        raise


def _refuse(folder: Path, error: Exception) -> None:
    found = refusal.Refusal(says=str(error), input=isinstance(error, BadInput))
    refusal.write(folder, found)


def _say_full(folder: Path, error: OSError) -> None:
    """Write down which disk is full. Where it is the run's, what is unfinished there goes, to make
    room for the word. Another rank may do the same."""
    place = Path(error.filename2 or error.filename or folder)
    if place.is_relative_to(folder):
        place = folder
        with contextlib.suppress(OSError):
            checkpoint.give_up(folder)
    says = f"{place}: the disk is full; free some space, then run the same command again"
    with contextlib.suppress(OSError):  # then how the ranks ended must tell it
        refusal.write(folder, refusal.Refusal(says=says, input=False))


def _tell(config: TrainingConfig) -> loop.Progress:
    def tell(line: loop.Line) -> None:
        left_s = (config.last_step() - line["step"]) * line["seconds"]
        _log.info(
            "step %d of %d: loss %.4f, %.0f tokens/s, %s left",
            line["step"], config.last_step(), line["loss"], line["tokens_per_s"],
            timedelta(seconds=round(left_s)),
        )  # fmt: skip

    return tell


def _end(status: int) -> NoReturn:
    """End this process. Not by Python's own way where ranks must be ended: taking down the group
    waits for the others, who may wait for this one."""
    if status in (0, SAVED) and dist.is_initialized():
        dist.destroy_process_group()
        sys.exit(status)
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    _end(main(sys.argv[1:]))
