"""A story in miniature of journals: each task looks at its things and writes what it saw to the
disk of the machine it runs on, and to the ledger that all can see only when it is done.

What is in the ledger nobody looks at again; `again.log` tells of each that somebody looked at who
could not know that it lay on another's disk. `FOLDER/disks/MACHINE` stands for the disk of a
machine: nothing here takes from that of another.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyarrow as pa
import ray

from pipeline.stage import Item, Stage, Step, Turn
from tests.pipeline.errands import identify, read_lines, wait_until, write_line

THINGS = pa.schema([("id", pa.binary(16))])
COUNT, SHARDS, TOGETHER = 32, 8, 4
Trouble = Callable[[Path], None]
"""What befalls a task when it has written something."""


def things(count: int) -> Iterator[pa.RecordBatch]:
    rows = [{"id": identify(b"%d" % n)} for n in range(count)]
    yield pa.RecordBatch.from_pylist(rows, THINGS)


def look(
    rows: Iterable[pa.RecordBatch], turn: Turn, *, folder: Path, trouble: Trouble
) -> Iterator[pa.RecordBatch]:
    disk, mine = disk_of(folder), []
    write_line(folder / "began.log", f"{disk.name} {os.getpid()}")
    for one in (row["id"].hex() for batch in rows for row in batch.to_pylist()):
        if not (folder / "ledger" / one).exists():
            if any((folder / "disks").glob(f"*/{one}")):
                write_line(folder / "again.log", one)
            # whole or not at all: another thread may be about to kill this process
            hidden = disk / f".{one}"
            hidden.write_text(str(os.getpid()))
            hidden.rename(disk / one)
            mine.append(one)
            trouble(folder)
    for one in mine:
        upload(disk / one, folder)
    yield from ()


def disk_of(folder: Path) -> Path:
    disk = folder / "disks" / str(ray.get_runtime_context().get_node_id())
    disk.mkdir(parents=True, exist_ok=True)
    return disk


def upload(path: Path, folder: Path) -> None:
    (folder / "ledger").mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        path.rename(folder / "ledger" / path.name)


def salvage(wait_s: float, *, folder: Path) -> None:
    """What lies on this machine's disk of processes that are gone."""
    for path in sorted(disk_of(folder).glob("[!.]*")):
        with suppress(FileNotFoundError):
            if not Path("/proc", path.read_text()).exists():
                write_line(folder / "salvaged.log", path.parent.name)
                upload(path, folder)


def salvage_nothing(wait_s: float, *, folder: Path) -> None:
    raise OSError("this disk is full")


def salvage_and_die(wait_s: float, *, folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_trouble(folder: Path) -> None:
    """All goes well."""


def killed(folder: Path, *, times: int) -> None:
    """So many processes are killed, one after another."""
    for n in range(times):
        with suppress(FileExistsError), (folder / f"killed{n}").open("x"):
            os.kill(os.getpid(), signal.SIGKILL)


def until_others_are_gone(folder: Path) -> None:
    """Nothing goes on before a machine is lost, and nothing there, whoever is left of it."""
    lost = folder / "lost"
    wait_until(lambda: lost.exists() and lost.read_text() not in ("", disk_of(folder).name))


def for_ever(folder: Path) -> None:
    wait_until(lambda: False)


def plan(
    folder: Path,
    trouble: Trouble = no_trouble,
    saving: Callable[..., None] | None = salvage,
) -> tuple[Stage, ...]:
    """Things, and that they were looked at."""
    step = Step(
        run=partial(look, folder=folder, trouble=trouble),
        schema=THINGS,
        scatter="id",
        each=("things",),
        together=TOGETHER,
        memory_gb=0.1,
        salvage=saving and partial(saving, folder=folder),
    )
    return (
        Stage(
            makes="things",
            version=1,
            main=Step(run=things, schema=THINGS, over=(Item(COUNT, "things"),), scatter="id"),
        ),
        Stage(
            makes="seen",
            version=1,
            before=(step,),
            main=Step(run=same, schema=THINGS, each=("things",)),
        ),
    )


def same(*rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from rows[-1]


def on_disks(folder: Path) -> int:
    """How much lies on the disks of machines."""
    return len(list((folder / "disks").glob("*/[!.]*")))


def machines(folder: Path) -> set[str]:
    """Where tasks have begun."""
    return {line.split()[0] for line in read_lines(folder / "began.log")}
