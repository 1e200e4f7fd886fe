"""The most memory that this process and all below it held at once, looked at now and then.

Counted are anonymous pages of every process and the largest shared segment among them once: files
mapped from disk can be dropped, and Ray's workers all map one object store.
"""

import contextlib
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_S = 0.5
_PROC = Path("/proc")


class Peak:
    """Bytes at most, so far."""

    def __init__(self) -> None:
        self.bytes = 0


@contextmanager
def watched(root: int) -> Iterator[Peak]:
    """Watch the tree below the process `root` while the block runs.

    Where there is no /proc, the largest single child that has ended is what is known.
    """
    peak, ended = Peak(), threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S):
            peak.bytes = max(peak.bytes, _tree_bytes(root))

    thread = threading.Thread(target=look, name="memory", daemon=True)
    if _PROC.is_dir():
        thread.start()
    try:
        yield peak
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()
        if not peak.bytes:
            unit = 1 if sys.platform == "darwin" else 1024
            peak.bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


def _tree_bytes(root: int) -> int:
    held = [_held(process) for process in _tree(root)]
    return sum(own for own, _ in held) + max((shared for _, shared in held), default=0)


def _tree(root: int) -> list[int]:
    """`root` and its descendants, as they are now."""
    children: dict[int, list[int]] = {}
    for path in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            # the name in parentheses may hold anything, so fields are counted from its end
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def _held(process: int) -> tuple[int, int]:
    """Anonymous and shared bytes of one process; none if it has ended."""
    fields: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in (_PROC / str(process) / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("RssAnon", "RssShmem"):
                fields[name] = int(value.split()[0]) * 1024
    return fields.get("RssAnon", 0), fields.get("RssShmem", 0)
