"""Where a Ray is: whether one runs here or answers elsewhere, and the folder of one of our own.

Ray itself is not loaded here; a process of its own asks for it.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "webtext-ray-"
LONGEST_PARENT = 30
"""Characters of a temporary folder's path that leave room for Ray's sockets below 107."""
CONNECT_TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 60.0
"""Most of it for a slow machine to import Ray."""
UNIMPLEMENTED = 12
"""gRPC's status of a server that has no such service."""
_ASK = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import RpcError
try:
    GcsClient(address=sys.argv[1])
except RpcError as error:
    sys.exit(error.rpc_code)
"""


def running_here() -> str | None:
    """The address of the cluster that `ray start` began on this machine: it writes it into its
    temporary folder, which is RAY_TMPDIR's, on Linux else TMPDIR's, else that of /tmp."""
    named = os.environ.get("RAY_TMPDIR") or (sys.platform == "linux" and os.environ.get("TMPDIR"))
    path = Path(named or "/tmp") / "ray" / "ray_current_cluster"
    return path.read_text().strip() if path.exists() else None


def answers(address: str) -> bool:
    """Whether a Ray listens there. Asked in a process of its own, which can be ended: in this one
    Ray would wait for minutes for a server that is none of its own, then end us."""
    place = address.rpartition("://")[2]
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S):
            pass
        asked = [sys.executable, "-c", _ASK, place]
        done = subprocess.run(asked, capture_output=True, timeout=ASK_TIMEOUT_S, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    # Any other refusal Ray tells in better words, once we join; ray:// is another door of it.
    return address.startswith("ray://") or done.returncode != UNIMPLEMENTED


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that is ours while the lock beside it is held; those whose lock is free were left
    by the killed and go. Short, since Ray puts sockets there, whose paths the system bounds."""
    parent = Path(tempfile.gettempdir())
    parent = parent if len(str(parent)) <= LONGEST_PARENT else Path("/tmp")
    for left in parent.glob(f"{PREFIX}*.lock"):
        with contextlib.suppress(OSError), left.open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            # Ray's agents outlive a killed driver by a minute and may write once more.
            if not left.with_suffix("").exists():
                left.unlink()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    beside = folder.with_suffix(".lock")
    try:
        with beside.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        beside.unlink(missing_ok=True)
