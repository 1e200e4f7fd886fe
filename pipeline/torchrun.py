"""Run one module on every rank of a gang of processes on this machine, with torch's own launcher.

The gang without Ray: nothing restarts a lost rank here. It is not known what is run.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

PR_SET_PDEATHSIG = 1
ENDED = 128 + signal.SIGTERM
_PATIENCE_S = 30
"""For which torch's launcher waits for those that it asked to end."""


def gpus() -> int:
    """GPUs of this machine."""
    import torch

    return torch.cuda.device_count()


def run(
    module: str,
    settings: Path,
    ranks: int,
    environment: Mapping[str, str],
    ask: Callable[[], None],
) -> int:
    """Call `python -m module settings` on `ranks` processes that form one torch process group; 0,
    or else what says most of those that failed: the highest status above 1 that a rank gave itself,
    128 and the signal that ended one, or 1.

    `environment` is added to ours. They end with this process, however it ends; at Ctrl-C they are
    given the time to: `ask` asks them to, a second one ends them.
    """
    words = ["--standalone", f"--nproc-per-node={ranks}", "-m", module, str(settings)]
    with ExitStack() as held:
        told = held.enter_context(_put_off())
        with subprocess.Popen(
            [sys.executable, "-m", __name__, *words],
            env=os.environ | dict(environment),
            preexec_fn=partial(_end_with, os.getpid()),
            start_new_session=True,  # Ctrl-C reaches it through us, once
        ) as process:
            try:
                held.close()
                if told:
                    raise KeyboardInterrupt
                return process.wait()
            except KeyboardInterrupt:
                ask()
                _wait_patiently(process)
                raise


def _wait_patiently(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait()
    except KeyboardInterrupt:
        # Asked to, it would give its ranks half a minute. On Linux they end with it.
        process.kill() if sys.platform == "linux" else process.terminate()
        process.wait()


def main(words: Sequence[str]) -> int:
    """`torchrun`, which ends without a word when it is asked to end, and with a rank's status where
    one failed: that rank has said why."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # in this process alone
    try:
        run.main(list(words))
    except SignalException:
        return ENDED
    except ChildFailedError as failed:
        code = telling([(each.timestamp, each.exitcode) for each in failed.failures.values()])
        return code if code > 0 else 128 - code
    return 0


def telling(failures: Sequence[tuple[int, int]]) -> int:
    """Of the exit codes of ranks that failed, each with when in seconds, the one that says most.

    One that leaves takes others with it, which then fail with 1; so a status of its own, and then a
    signal, says more than that. But not one that the launcher sent to those that were left: SIGTERM
    first, SIGKILL half a minute later.
    """
    began = min(when for when, _ in failures)
    early = [code for when, code in failures if when - began < _PATIENCE_S / 2]
    codes = [code for code in early if code != -signal.SIGTERM] or early
    return max(codes) if max(codes) > 1 else min(codes)


@contextmanager
def _put_off() -> Iterator[list[int]]:
    """What asks this process to end in the block is noted, not raised: Python calls others' code
    when a process is forked, and passes over what is raised in there."""
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    asking = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)  # restored in this order, it last
    before = {each: raises for each in asking if callable(raises := signal.getsignal(each))}
    for each in before:
        signal.signal(each, lambda number, _: told.append(number))
    try:
        yield told
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _end_with(parent: int) -> None:
    """In the child: let the system end it when `parent` dies, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(ENDED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
