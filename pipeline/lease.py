"""One writer at a time holds a root.

The lease is a lock of the operating system on `lease.json`: it ends with its process, however that
dies, so a stale one cannot exist. What the file says is only for the message to the one who is
refused.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipeline.failures import Held


@contextmanager
def hold(root: Path, command: str) -> Iterator[None]:
    """Be the one writer of `root` while the block runs; `Held` says who is, if it is another."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lease.json").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise Held(_refusal(root, file.read())) from error
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": command,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        file.truncate(0)
        file.write(json.dumps(owner))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _refusal(root: Path, text: str) -> str:
    try:
        owner = json.loads(text)
        age = datetime.now(UTC) - datetime.fromisoformat(owner["since"])
        who = (
            f"`webtext {owner['command']}` (process {owner['pid']} on {owner['host']}) "
            f"for {int(age.total_seconds())} s"
        )
    except (ValueError, KeyError):
        who = "another process"
    return f"{root} is held by {who}; wait for it or end it, then run the same command again"
