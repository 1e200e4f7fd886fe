"""Lives of a crawler that a kill ends, by the hundred: a mother that has imported everything forks
a child for each, and ends it where it is told to.

    with mother() as begin:
        death = begin(Life(number=1, ledger=..., ends=Ends(after_s=0.2))).result()

Rule: a child is ended by SIGKILL and nothing else, from outside or at a step of its own; whoever
ends otherwise has failed, or was done. All moments are of the monotonic clock, the same in all
processes of a machine. Everything here ends with the mother, and she with who called her.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from crawl import capture, observations, pages, rounds, segments
from crawl.config import CrawlConfig
from crawl.notes import Notes
from tests import web

ROOT = Path(__file__).parents[1]
LOOK_S = 0.002
"""Between two looks of the mother at her children."""
LONGEST_S = 120.0
"""A child that hangs is ended, which fails its test."""
HEARD = ("open", "rename", "remove", "truncate")
"""What Python itself tells of."""
WRITES = os.O_WRONLY | os.O_RDWR

STEPS = {
    "open": 12,
    "rename": 12,
    "remove": 8,
    "truncate": 4,
    "fsync": 12,
    "copy": 2,
    "records": 60,
    "line": 40,
    "note": 10,
}
"""What a child can end itself just before: a file of the ledger being opened to be written, renamed
and so on; the second half of an upload; the records of an exchange, the line of a journal, a note
about a host. And how many of these a short life is likely to see."""


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """Where a life is to end; nothing: not before all is done."""

    after_s: float | None = None
    log_bytes: int | None = None
    """When the server's log has grown by so much."""
    step: str | None = None
    count: int = 1
    """Just before the so manieth of these `STEPS`."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is to do."""

    number: int
    ledger: str
    log: str
    config: CrawlConfig
    links: tuple[str, ...]
    owners: int = 3
    """Tasks into which the ids are cut, which share the process."""
    segment_rows: int = 25
    ends: Ends = Ends()


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it."""

    number: int
    began: float
    killed: float | None
    """Just before the kill; None where it ended by itself."""
    over: float
    """When it was dead for certain."""
    status: int
    place: str
    """What it was ended by: time, requests, or the step that it did not do any more."""


@contextlib.contextmanager
def mother() -> Iterator[Callable[[Life], "Future[Death]"]]:
    """Begins lives, any number at once; a future for the end of each."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos_lives"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    told, waiting, lock = process.stdin, dict[int, Future[Death]](), threading.Lock()

    def hear() -> None:
        assert process.stdout
        for line in process.stdout:
            death = msgspec.json.decode(line, type=Death)
            waiting.pop(death.number).set_result(death)
        for future in waiting.values():
            future.set_exception(RuntimeError("the mother is gone: see what she wrote above"))

    def begin(life: Life) -> "Future[Death]":
        future = waiting[life.number] = Future()
        with lock:
            told.write(msgspec.json.encode(life) + b"\n")
            told.flush()
        return future

    listener = threading.Thread(target=hear, daemon=True)
    listener.start()
    with process:
        try:
            yield begin
        finally:
            told.close()
            listener.join()


def main() -> None:
    """The mother: lives in by standard input, a line each, deaths out. Ends with her input."""
    web.links_to("http://a.test/")  # reads the public suffixes, once for all
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a child prints
    children: dict[int, Child] = {}
    came, is_open = b"", True
    while is_open or children:
        if select.select([0] if is_open else [], [], [], LOOK_S)[0]:
            data = os.read(0, 1 << 20)
            is_open, came = bool(data), came + data
            *lines, came = came.split(b"\n")
            for line in lines:
                child = Child(msgspec.json.decode(line, type=Life))
                children[child.pid] = child
        for child in list(children.values()):
            child.end_if_due(at_once=not is_open)
            if death := child.death():
                os.write(out, msgspec.json.encode(death) + b"\n")
                del children[child.pid]


class Child:
    """A life, as its mother sees it."""

    def __init__(self, life: Life) -> None:
        self._life, self._began = life, time.monotonic()
        self._log_at = self._log_bytes()
        self._killed: tuple[float, str] | None = None
        self._hears, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            live(life, tell)
        os.close(tell)

    def end_if_due(self, *, at_once: bool) -> None:
        """Kills it where it is time."""
        if self._killed:
            return
        ends, age = self._life.ends, time.monotonic() - self._began
        by = None
        if ends.after_s is not None and age >= ends.after_s:
            by = "time"
        elif ends.log_bytes is not None and self._log_bytes() >= self._log_at + ends.log_bytes:
            by = "requests"
        elif at_once or age >= LONGEST_S:
            by = "hung"
        if by:
            self._killed = time.monotonic(), by
            os.kill(self.pid, signal.SIGKILL)  # not waited for yet, so the number is still its own

    def death(self) -> Death | None:
        """How it ended, if it has."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        over, code = time.monotonic(), os.waitstatus_to_exitcode(status)
        said = os.read(self._hears, 1000)
        os.close(self._hears)
        killed, place = self._killed or (None, "")
        if code == -signal.SIGKILL and said:
            killed, place = msgspec.json.decode(said, type=tuple[float, str])
        return Death(
            number=self._life.number,
            began=self._began,
            killed=killed if code == -signal.SIGKILL else None,
            over=over,
            status=code,
            place=place if code == -signal.SIGKILL else "",
        )

    def _log_bytes(self) -> int:
        return os.stat(self._life.log).st_size if Path(self._life.log).exists() else 0  # noqa: PTH116


def live(life: Life, tell: int) -> None:
    """The child: crawls until all is done, and never returns."""
    code = 1
    try:
        observations.SEGMENT_ROWS = life.segment_rows
        observations.SYNC_S = 0.05
        if life.ends.step:
            _end_at(life, tell)
        crawl(life)
        code = 0
    except BaseException:  # noqa: BLE001  -- told, and by its status
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def crawl(life: Life) -> None:
    """What the pipeline does: every owner asks its links, then what others hand it, in rounds."""
    links = pa.Table.from_batches([web.links_to(*life.links)])
    shares = [_share(links, "link_id", owner, life.owners) for owner in range(life.owners)]
    handed: list[pa.Table] | None = None
    with ThreadPoolExecutor(life.owners) as threads:
        for _ in range(1 + rounds.ROUNDS):

            def ask(owner: int, given: list[pa.Table] | None = handed) -> list[pa.RecordBatch]:
                more = None if given is None else given[owner].to_batches()
                kept = shares[owner].to_batches()
                return list(pages.ask(kept, life.ledger, life.config, handed=more))

            left = [batch for batches in threads.map(ask, range(life.owners)) for batch in batches]
            if not left:
                return
            onward = pa.Table.from_batches(left)
            handed = [_share(onward, "owner_id", one, life.owners) for one in range(life.owners)]


def _share(table: pa.Table, column: str, owner: int, owners: int) -> pa.Table:
    ids = table[column].to_pylist()
    mine = [int.from_bytes(one[:4]) * owners >> 32 == owner for one in ids]
    return table.filter(pa.array(mine, pa.bool_()))


def _end_at(life: Life, tell: int) -> None:
    """Has this process end itself just before the step that it is told."""
    ends, left = life.ends, [life.ends.count]
    ours = (life.ledger, life.config.journal or life.ledger)

    def step(name: str) -> None:
        if name == ends.step:
            left[0] -= 1
            if left[0] == 0:
                os.write(tell, msgspec.json.encode((time.monotonic(), name)))
                os.kill(os.getpid(), signal.SIGKILL)

    def heard(event: str, args: tuple[Any, ...]) -> None:
        kind = event.removeprefix("os.")
        if kind not in HEARD or not str(args[0]).startswith(ours):
            return
        if kind != "open" or args[2] & WRITES:
            step(kind)

    def before(owner: Any, name: str, kind: str) -> None:
        function = getattr(owner, name)

        def stepped(*args: Any, **named: Any) -> Any:
            step(kind)
            return function(*args, **named)

        setattr(owner, name, stepped)

    def half(original: Any, copy: Any, size: int) -> None:
        copy.write(original.read(2000))
        copy.flush()
        step("copy")
        whole(original, copy, size)

    whole = shutil.copyfileobj
    shutil.copyfileobj = half  # type: ignore[assignment]
    before(os, "fsync", "fsync")
    before(capture, "write", "records")
    before(segments.Segment, "_write", "line")
    before(Notes, "tell", "note")
    sys.addaudithook(heard)


if __name__ == "__main__":
    main()
