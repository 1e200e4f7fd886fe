"""How a rank is asked to save and leave, and the status it leaves with.

Two ways to ask, for who asks may be near or far: SIGTERM to any rank, or a file in the run's
folder, which rank 0 sees between two steps. Whoever starts ranks clears the file before the first
of them: what is asked while they start, or start again, is heard.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SAVED = 75
"""A rank was asked to leave, and a checkpoint of its last step is there: the same command goes on.
(EX_TEMPFAIL of sysexits.h.)"""

AGAIN = 76
"""Begin again at once: what the rank wrote down (`fit.py`) lets it come further."""

LAUNCHED = "WEBTEXT_LAUNCHED"
"""Set in the environment of ranks that `webtext train` starts: it has cleared what the command
before left in the folder, and tells each step itself."""

_FILE = "leave"


def ask(folder: Path) -> None:
    """Ask all ranks of the run in `folder` to save and leave after the step they are at."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FILE).touch()


def clear(folder: Path) -> None:
    """Forget that it was asked."""
    (folder / _FILE).unlink(missing_ok=True)


@contextmanager
def asked(folder: Path, rank: int) -> Iterator[Callable[[], bool]]:
    """Tells in the block whether this rank has been asked to leave.

    SIGTERM is heard only where the block runs in the process's main thread, as signals are.
    """
    heard = threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        heard.set()

    def look() -> bool:
        return heard.is_set() or (rank == 0 and (folder / _FILE).exists())

    if threading.current_thread() is not threading.main_thread():
        yield look
        return
    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield look
    finally:
        signal.signal(signal.SIGTERM, before)
