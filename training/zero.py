"""The same loop on DeepSpeed ZeRO: the one file that imports DeepSpeed.

`train` is called on every rank, with RANK, LOCAL_RANK and WORLD_SIZE in the environment or a
process group that someone (Ray Train) has already made. DeepSpeed's own settings are derived from
ours and recorded in the run folder as deepspeed.json; nobody edits them. Without Ray:

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m training.zero SETTINGS.json

where SETTINGS.json holds {"training": {...}, "tokens": "<folder>", "folder": "<run folder>"}.
"""

import atexit
import contextlib
import ctypes
import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__" and sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
    # The system kills this rank when torch's launcher is gone, however it went: ranks have a
    # session of their own, so nothing else would. Before torch is imported, which takes seconds.
    _launcher = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0):  # PR_SET_PDEATHSIG
        raise OSError(ctypes.get_errno(), "prctl: this rank would outlive its launcher")
    if os.getppid() != _launcher:
        raise SystemExit("the launcher of this rank ended while it started")

import msgspec
import torch
from torch import Tensor
from torch import distributed as dist

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read once, on import

import deepspeed
from deepspeed.ops import __compatible_ops__ as _compatible_ops

from training import batches, checkpoint, files, loop, refusal, tokens
from training.config import BadInput, TrainingConfig
from training.engine import Batch, Step, adamw, own_weights
from training.model import GPT2, build

_TAG = "state"
_BUCKET = 50_000_000
"""Numbers sent at once: small enough that a 124 M model's gradient is sent while the rest is still
computed, which DeepSpeed's default of 500 million never does."""

_log = logging.getLogger(__name__)
logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
# DeepSpeed's calls of collectives that torch is renaming, one warning each call.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed.c10d_logger")


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What SETTINGS.json holds."""

    training: TrainingConfig
    """The resolved settings."""
    tokens: str
    """Folder of the token files."""
    folder: str
    """The run's folder: `checkpoint.run_folder` of the two above."""


def train(
    config: TrainingConfig, tokens: str, folder: str, progress: loop.Progress | None = None
) -> None:
    """Train on the token files in `tokens`, go on where the run in `folder` stopped.

    Every rank calls it. BadInput where settings, tokens, ranks and checkpoint do not fit together,
    or where another training holds `folder`; `loop.Diverged` where the loss is no longer a number.
    """
    _join_ranks()
    with _held(Path(folder)):
        run = _open(config, tokens, Path(folder))
        if run.engine.rank == 0:
            _record(run.folder, config, run.engine.world)
        loop.train(run, _agreed(run), progress)


def run(job: Job, progress: loop.Progress | None = None) -> None:
    """`train`, where what would fail again however often it is started anew is written down.

    Nothing is done where that has been written: of a gang that is restarted no rank waits for
    another that was refused.
    """
    folder = Path(job.folder)
    if refusal.read(folder):
        return
    try:
        train(job.training, job.tokens, job.folder, progress)
    except (BadInput, loop.Diverged) as error:
        found = refusal.Refusal(says=str(error), input=isinstance(error, BadInput))
        refusal.write(folder, found)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _say_full(folder)
        raise


def _say_full(folder: Path) -> None:
    """Write down that the disk is full; what is unfinished there goes, to make room for the word.
    Another rank may do the same."""
    says = f"{folder}: the disk is full; free some space, then run the same command again"
    with contextlib.suppress(OSError):
        checkpoint.give_up(folder)
    with contextlib.suppress(OSError):  # then how the ranks ended must tell it
        refusal.write(folder, refusal.Refusal(says=says, input=False))


def deepspeed_settings(config: TrainingConfig, world: int) -> dict[str, Any]:
    """DeepSpeed's configuration, derived. Sizes are given, so it never guesses an accumulation."""
    micro = config.micro_windows(world)
    settings: dict[str, Any] = {
        "train_batch_size": config.batch_windows(),
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": config.rank_windows(world) // micro,
        "gradient_clipping": config.clip,
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {
            "stage": config.zero_stage,
            "reduce_bucket_size": _BUCKET,
            "allgather_bucket_size": _BUCKET,
        },
    }
    if config.precision == "bf16":
        # Not DeepSpeed's "bf16": that rounds the weights too, and at stage 0 steps once on zeros.
        settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return settings


class ZeroEngine:
    """Engine on DeepSpeed ZeRO; a process group must be there."""

    def __init__(self, config: TrainingConfig, model: GPT2) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._config, self._device = config, _device()
        model = model.to(self._device)
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            # DeepSpeed's own Adams are compiled on the user's machine; torch's needs no compiler.
            optimizer=adamw(config, model),
            config=deepspeed_settings(config, self.world),
        )

    def step(self, micro_batches: Sequence[Batch], learning_rate: float) -> Step:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        losses = []
        for number, batch in enumerate(micro_batches, 1):
            loss = self._loss(batch)
            self._engine.backward(loss)
            losses.append(loss.detach())
            if number == len(micro_batches):
                norm = self._stage_0_norm()
            self._engine.step()
        if norm is None:
            norm = float(self._engine.get_global_grad_norm())
        if not self._engine.was_step_applied():
            norm = float("nan")  # ZeRO skips such a step without a word
        return Step(loss=self._mean(torch.stack(losses).mean()), grad_norm=norm)

    def evaluate(self, batches: Sequence[Batch]) -> float:
        self._engine.eval()
        with torch.no_grad():
            losses = [self._loss(batch) for batch in batches]
        self._engine.train()
        return float(torch.stack(losses).mean())

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        found, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        if found is None:
            raise RuntimeError(f"{folder}: DeepSpeed found no state there")

    def weights(self) -> dict[str, Tensor]:
        model = self._engine.module
        if self._config.zero_stage < 3:
            return own_weights(model) if self.rank == 0 else {}
        gathered: dict[str, Tensor] = {}
        for name, weight in model.named_parameters():
            with deepspeed.zero.GatheredParameters([weight]):
                if self.rank == 0:
                    gathered[name] = weight.detach().cpu().clone()
        return gathered

    def barrier(self) -> None:
        dist.barrier()

    def _loss(self, batch: Batch) -> Tensor:
        inputs, targets = (ids.to(self._device, non_blocking=True) for ids in batch)
        loss: Tensor = self._engine(inputs, targets)
        return loss

    def _stage_0_norm(self) -> float | None:
        """The gradient's norm where DeepSpeed does not tell it: before its step clips."""
        if self._config.zero_stage:
            return None
        gradients = [w.grad for w in self._engine.module.parameters() if w.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def _mean(self, value: Tensor) -> float:
        dist.all_reduce(value)
        return float(value) / self.world


def main(arguments: Sequence[str]) -> int:
    """Run a Job file; 0 done, 1 the loss was lost or a disk failed, 2 the file or what it names is
    wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if len(arguments) != 1:
        _log.error("one argument: the SETTINGS.json of the run")
        return 2
    try:
        job = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Job)
        refusal.clear(Path(job.folder))
        run(job, _tell)
    except (BadInput, msgspec.DecodeError, FileNotFoundError) as error:
        _log.error("%s", error)
        return 2
    except (loop.Diverged, OSError) as error:
        _log.error("%s", error)
        return 1
    return 0


def _tell(step: int, loss: float, tokens_per_s: float) -> None:
    _log.info("step %d: loss %.4f, %.0f tokens/s", step, loss, tokens_per_s)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Rank 0 holds the run's folder for the block; where it cannot, every rank says why."""
    with ExitStack() as stack:
        refusal: list[str | None] = [None]
        if dist.get_rank() == 0:
            try:
                stack.enter_context(checkpoint.hold(folder))
            except BadInput as error:
                refusal = [str(error)]
        dist.broadcast_object_list(refusal, src=0, device=_device())
        if refusal[0] is not None:
            raise BadInput(refusal[0])
        yield


def _join_ranks() -> None:
    """Make DeepSpeed use the process group that is there, or one made here."""
    # Else every start compiles an extension with g++ and ninja, 45 s the first time.
    _compatible_ops["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(_device())
    if not dist.is_initialized():
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:  # alone; port 0 is any free one
            os.environ.setdefault("LOCAL_RANK", "0")
            dist.init_process_group(backend, "tcp://127.0.0.1:0", rank=0, world_size=1)
        # Not sooner: DeepSpeed remembers its groups for as long as the process lives.
        atexit.register(dist.destroy_process_group)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _open(config: TrainingConfig, folder: str, run_folder: Path) -> loop.Run:
    train, validation = (tokens.open_split(folder, split) for split in ("train", "validation"))
    # Before a model is made that cannot be trained.
    config.micro_windows(dist.get_world_size())
    batches.require_window(train, config.sizes().context, f"tokens in {folder}")
    engine = ZeroEngine(config, build(config.sizes(), config.seed))
    return loop.Run(config, engine, train, validation, run_folder)


def _agreed(run: loop.Run) -> checkpoint.Checkpoint | None:
    """The checkpoint to go on from: rank 0 looks, so that all ranks see the same one."""
    found = [checkpoint.resume(run.folder) if run.engine.rank == 0 else None]
    dist.broadcast_object_list(found, src=0, device=_device())
    return found[0]


def _record(folder: Path, config: TrainingConfig, world: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    records = {
        "settings.json": msgspec.json.encode(config),
        "deepspeed.json": msgspec.json.encode(deepspeed_settings(config, world)),
    }
    for name, content in records.items():
        files.write(folder / name, msgspec.json.format(content) + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
