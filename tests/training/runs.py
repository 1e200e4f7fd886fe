"""Runs of the trainer for the tests: plain ones here, ZeRO's on ranks in children.

DeepSpeed keeps its groups for as long as a process lives, so ranks never are this process; they
are forked from one that has imported all they need, which takes seconds, once.
"""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from training import batches, loop, metrics, tokens
from training.config import TrainingConfig
from training.engine import Engine, PlainEngine
from training.loop import Line
from training.model import GPT2, build
from training.run import Run

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
DEADLINE_S = 300
"""A hang ends the test; no assertion depends on it."""

BAD = 61

_LINEAR = torch.nn.functional.linear
"""ZeRO 3 replaces it for as long as the process lives. A rank has one engine; here it has several,
and of those behind a ZeRO 3 the gradients would be ready, and added up, in another order."""

TIMED = {"tokens_per_s", "seconds", "mfu", "memory_bytes", "data_wait_s", "checkpoint_stall_s"}
"""What of a line may differ between two runs that are the same."""


def changed(config: TrainingConfig, **change: Any) -> TrainingConfig:
    """These settings, but for some."""
    return msgspec.structs.replace(config, **change)


def opened(engine: Engine, config: TrainingConfig, folder: Path, micro: int, **more: Any) -> Run:
    """A run whose tokens lie in `tokens` beside its folder."""
    shards = folder.parent / "tokens"
    train, validation = (tokens.open_split(shards, each) for each in ("train", "validation"))
    return Run(
        config=config,
        engine=engine,
        train=train,
        validation=validation,
        tokens_folder=shards,
        folder=folder,
        micro=micro,
        **more,
    )


def plain(config: TrainingConfig, folder: Path, model: GPT2 | None = None, **more: Any) -> Run:
    """A run with the plain engine."""
    engine = PlainEngine(config, model or build(config.sizes(), config.seed), CPU)
    return opened(engine, config, folder, config.micro_windows(1), **more)


def zero(config: TrainingConfig, folder: Path, model: GPT2 | None = None, **more: Any) -> Run:
    """A run with ZeRO, on a rank."""
    from training import rank
    from training.zero import ZeroEngine

    more = {"agreed": lambda make: rank._from_first(make, CPU)} | more
    micro = config.micro_windows(dist.get_world_size())
    torch.nn.functional.linear = _LINEAR
    engine = ZeroEngine(config, model or build(config.sizes(), config.seed), CPU, micro)
    return opened(engine, config, folder, micro, **more)


def train(run: Run) -> list[Line]:
    """Train; all lines of the run."""
    loop.train(run)
    return metrics.read(run.folder)


def go(config: TrainingConfig, folder: Path, **more: Any) -> list[Line]:
    """Train with the plain engine; all lines of the run."""
    return train(plain(config, folder, **more))


def course(lines: list[Line]) -> list[Line]:
    """What of the lines is the same whenever and wherever the run is repeated."""
    return [{name: each[name] for name in each if name not in TIMED} for each in lines]


def apart(lines: list[Line], others: list[Line]) -> float:
    """The largest difference between the losses, norms and validation losses of two runs."""
    assert [set(line) for line in lines] == [set(line) for line in others]
    assert [line["step"] for line in lines] == [line["step"] for line in others]
    names = ("loss", "grad_norm", "validation_loss")
    pairs = [(a[name], b[name]) for a, b in zip(lines, others, strict=True) for name in names
             if a.get(name) is not None or b.get(name) is not None]  # fmt: skip
    assert pairs
    return max(abs(a - b) for a, b in pairs)


def flat(config: TrainingConfig, **change: Any) -> TrainingConfig:
    """With an id, BAD, that stands nowhere yet. The rate never changes, so that leaving a batch out
    shifts nothing but the numbers of steps."""
    sizes = msgspec.structs.replace(config.sizes(), vocabulary=BAD + 1)
    settings = {"warmup_steps": 0, "final_learning_rate_share": 1.0, "evaluate_every": 0}
    return msgspec.structs.replace(config, model=sizes, **settings, **change)


def put(config: TrainingConfig, shards: Path, number: int, ids: Sequence[int]) -> None:
    """Begin a window of batch `number` with these ids; all its windows, where they fill one."""
    context = config.sizes().context
    windows = tokens.open_split(shards, "train").windows(context)
    batch = batches.step_windows(config.seed, number, config.batch_windows(), windows)
    lengths = tokens.shard_lengths(shards, "train")
    stream = np.concatenate([np.fromfile(path, "<u2") for path in lengths])
    for window in batch if len(ids) == context - 1 else batch[2:3]:
        begin = int(window) * context + 1
        stream[begin : begin + len(ids)] = ids
    for path, part in zip(lengths, np.split(stream, np.cumsum([*lengths.values()])), strict=False):
        part.tofile(path)


def unsound(config: TrainingConfig, spoils: int = BAD) -> GPT2:
    """A model whose gradient is not finite in a pass that holds the id `spoils`; its loss is."""
    model = build(config.sizes(), config.seed)
    held = []

    def look(module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        held[:] = [bool((arguments[0] == spoils).any())]

    def spoil(module: torch.nn.Module, arguments: Any, output: Tensor) -> None:
        if held[0] and output.requires_grad:
            output.register_hook(lambda gradient: gradient * torch.inf)

    model.register_forward_pre_hook(look)
    model.ln_f.register_forward_hook(spoil)
    return model


def state(engine: Engine) -> dict[str, Tensor]:
    """All of an engine's state, copied."""
    return {name: tensor.detach().clone() for name, tensor in engine.state()}


def ranks(world: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module's function on each of `world` new ranks; what rank 0's gives. An error on any
    of them ends all, and fails the test."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "training.rank", "pytest"])
    with TemporaryDirectory() as folder:
        started: dict[Any, Any] = {}
        for rank in range(world):
            ours, theirs = context.Pipe(duplex=False)
            call = (rank, world, f"file://{folder}/ranks", theirs, function, arguments)
            process = context.Process(target=_rank, args=call, daemon=True)
            process.start()
            theirs.close()
            started[ours] = rank, process
        try:
            return _results(started)[0]
        finally:
            for _, process in started.values():
                process.kill()
                process.join()


def _results(started: Mapping[Any, Any]) -> dict[int, Any]:
    left, results, ends = dict(started), {}, time.monotonic() + DEADLINE_S
    while left:
        ready = wait(list(left), max(0.0, ends - time.monotonic()))
        assert ready, "the ranks hang"
        for pipe in ready:
            rank, _ = left.pop(pipe)
            try:
                failed, results[rank] = pipe.recv()
            except EOFError:
                failed, results[rank] = True, "ended without a word"
            assert not failed, f"rank {rank}: {results[rank]}"
    return results


def _rank(
    rank: int,
    world: int,
    meeting: str,
    told: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ["PATH"] = "/nonexistent"  # no compiler: nothing may be built at start-up
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    try:
        from training import zero

        dist.init_process_group("gloo", meeting, rank=rank, world_size=world)
        zero.join(CPU)
        told.send((False, function(*arguments)))
    except BaseException:
        told.send((True, traceback.format_exc()))
        raise
