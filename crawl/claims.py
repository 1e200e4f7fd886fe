"""Who may ask for a range of ids: a locked file `NAME.claim`, which ends with its owner.

Claims of one label that overlap exclude each other, others never do. All names of the ledger begin
with the range they cover and who writes there: `LOW-HIGH-LABEL-`, the ids by their first bytes.
"""

import fcntl
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

WAIT_S = 60.0
"""Seconds that the predecessor of a task that is tried again may take to die."""
RANGE_BYTES = 4
LOWEST, HIGHEST = b"\x00" * 16, b"\xff" * 16


class Held(RuntimeError):
    """Another process writes to the ledger for the same links: there must be one."""


@contextmanager
def claimed(
    folder: Path,
    low: bytes,
    high: bytes,
    *,
    label: str,
    wait_s: float = WAIT_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Keeps a range of ids, both ends included, from all others that claim it under this label.

    Where another process has it, that one is waited for; after `wait_s` seconds Held is raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name(low, high, label)}-{secrets.token_hex(6)}.claim"
    deadline = clock() + wait_s
    while not (file := _claim(path, low, high, label)):
        if clock() >= deadline:
            raise Held(f"{folder}: another process asks for the same links; end it, then go on")
        sleep(0.05)
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def name(low: bytes, high: bytes, label: str) -> str:
    """The beginning of a name in the ledger."""
    return f"{low[:RANGE_BYTES].hex()}-{high[:RANGE_BYTES].hex()}-{label}"


def label_of(path: Path) -> str:
    """Who writes there."""
    return path.name.split("-")[2]


def overlapping(folder: Path, suffix: str, low: bytes, high: bytes) -> list[Path]:
    """The files of this kind whose range shares an id with this one."""
    first, last = low[:RANGE_BYTES].hex(), high[:RANGE_BYTES].hex()
    found = sorted(path for path in folder.glob(f"[0-9a-f]*{suffix}"))
    return [path for path in found if path.name[:8] <= last and path.name[9:17] >= first]


def _claim(path: Path, low: bytes, high: bytes, label: str) -> IO[bytes] | None:
    """The claim, locked; None where a living process has one that it overlaps."""
    with path.with_name(".claims").open("ab") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # one process at a time looks and claims
        for other in overlapping(path.parent, ".claim", low, high):
            if label_of(other) == label and _is_held(other):
                return None
        file = path.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file


def _is_held(path: Path) -> bool:
    """Whether the owner of a claim lives; the claim of a dead one is taken away."""
    try:
        with path.open("r+b") as file:  # over NFS a file must be open for writing to be locked so
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    path.unlink(missing_ok=True)
    return False
