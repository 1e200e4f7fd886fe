"""Run one function on every rank of a gang of processes, one per GPU, with Ray Train.

A lost rank restarts all of them; the function finds out itself where to go on. It is not known here
what is run.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from pipeline.failures import GangFailed

RESTARTS = 20
"""Times that all ranks may be started anew: for a lost one, or for less memory."""


def gpus() -> int:
    """GPUs of the connected cluster."""
    return _resource("GPU")


def run(
    function: Callable[[dict[str, Any]], None],
    argument: dict[str, Any],
    ranks: int,
    folder: str,
    *,
    use_gpu: bool,
    cpu_environment: Mapping[str, str],
    timeout_s: float,
    ask: Callable[[], None],
) -> None:
    """Call `function(argument)` on `ranks` processes that form one torch process group.

    Each gets a GPU of its own, or a CPU and `cpu_environment`. `folder` is for Ray Train's own
    small files, so that they do not stay in the user's home. After `timeout_s` a rank no longer
    waits for another. At Ctrl-C `ask` asks the ranks to
    leave; a second one does not wait for them. GangFailed where the cluster has too few, for Ray
    would wait, or where a rank was lost too often.
    """
    kind = "GPU" if use_gpu else "CPU"
    if _resource(kind) < ranks:
        raise GangFailed(
            f"training.ranks: is {ranks}, but the cluster has {_resource(kind)} {kind}s"
        )
    trainer = TorchTrainer(
        function,
        train_loop_config=argument,
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=int(timeout_s)),
        scaling_config=ScalingConfig(
            num_workers=ranks, use_gpu=use_gpu, resources_per_worker=None if use_gpu else {"CPU": 1}
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # mypy sees the one of before 2.43
            name="gang",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=RESTARTS),
            worker_runtime_env={} if use_gpu else {"env_vars": dict(cpu_environment)},
        ),
    )
    try:
        _beside(trainer.fit, ask)
    except ray.train.TrainingFailedError as error:
        raise GangFailed(_cause(error)) from error


def _beside(work: Callable[[], object], ask: Callable[[], None]) -> None:
    """Wait for `work` in a thread of its own: in the main one, Ray Train would take Ctrl-C from us
    and end the process without a word."""
    raised: list[BaseException] = []
    # Not the thread's own `join`: where Ctrl-C interrupts one, Python takes the thread for ended.
    ended = threading.Event()

    def run_it() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  -- raised below, in the thread that waits
            raised.append(error)
        finally:
            ended.set()

    threading.Thread(target=run_it, name="gang", daemon=True).start()
    try:
        _wait(ended)
    except KeyboardInterrupt:
        ask()
        _wait(ended)
        raise
    if raised:
        raise raised[0]


def _wait(ended: threading.Event) -> None:
    while not ended.wait(timeout=1.0):  # in slices: one without end would not hear Ctrl-C
        pass


def _resource(name: str) -> int:
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get(name, 0))


def _cause(error: Exception) -> str:
    """The first rank's own words."""
    failures = getattr(error, "worker_failures", None) or {}
    causes = [failures[rank] for rank in sorted(failures)]
    first = causes[0] if causes else error
    text = str(getattr(first, "cause", None) or first).strip()
    return text.splitlines()[-1] if text else type(first).__name__
