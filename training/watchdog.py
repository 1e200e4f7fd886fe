"""Ends a rank that hangs, and says where it hung.

A rank that waits for another that will never come, or for a driver that will never answer, cannot
be asked. The standard library's faulthandler looks from outside of Python: its thread needs no lock
that the hanging code may hold.
"""

import faulthandler
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def watched(folder: Path, rank: int, limit_s: float) -> Iterator[Callable[[], None]]:
    """Watch over the block: unless what this gives is called every `limit_s` seconds, the stacks of
    all threads are added to `hung-RANK.txt` in `folder` and the process ends with status 1. Those
    of before stay: a rank that is started again must not wipe out why. 0 seconds watch nothing."""
    if not limit_s:
        yield lambda: None
        return
    with path(folder, rank).open("a") as file:

        def alive() -> None:
            faulthandler.dump_traceback_later(limit_s, exit=True, file=file)

        alive()
        try:
            yield alive
        finally:
            faulthandler.cancel_dump_traceback_later()
            if not os.fstat(file.fileno()).st_size:
                path(folder, rank).unlink(missing_ok=True)


def path(folder: Path, rank: int) -> Path:
    """Where a rank writes its stacks."""
    return folder / f"hung-{rank:05d}.txt"


def hung(folder: Path, since: float) -> list[Path]:
    """What ranks left there that hung after `since`, a time in seconds as time.time gives it."""
    files = [(found, found.stat()) for found in sorted(folder.glob("hung-*.txt"))]
    return [found for found, stat in files if stat.st_size and stat.st_mtime >= since]
