"""A story in miniature of errands: each walker visits a few places, one a round, and where the next
place lies in another range of ids, its owner goes on in the next round.

What was visited lies in a ledger of small files, so that nothing is visited twice, whoever is
killed when; `visits.log` tells every visit that was really made, `begun.log` and `tasks.log` every
task that began and ended, `given_back.log` those that stopped on the way.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from pipeline.stage import Ahead, GivenBack, Item, Stage, Step, Turn
from pipeline.store import range_of, write_bytes

ID = pa.binary(16)
WALKERS = pa.schema([("id", ID), ("places", pa.int64())])
ONWARD = pa.schema([("place", ID), ("id", ID), ("places", pa.int64())])
VISITS = pa.schema([("id", ID), ("visits", pa.int64())])
SHARDS = 8
DEADLINE_S = 120
Trouble = Callable[[Turn, int, Path], None]
"""What befalls a task on its way: called before every walker, with the round and the folder."""
ROUNDS = 3
"""The first, and those after it; who has places left then stays where he is."""


def identify(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).digest()


def walkers(count: int) -> Iterator[pa.RecordBatch]:
    rows = [{"id": identify(b"%d" % n), "places": n % (ROUNDS + 2)} for n in range(count)]
    yield pa.RecordBatch.from_pylist(rows, WALKERS)


def nothing(*_: Iterable[pa.RecordBatch]) -> None:
    """An effect that leaves nothing behind."""


def nobody(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Hands on no rows at all, not even an empty batch."""
    for batch in rows:
        yield from () if len(batch) else [batch]


def visit(
    rows: Iterable[pa.RecordBatch], *turn: Turn, number: int, folder: Path, trouble: Trouble
) -> Iterator[pa.RecordBatch] | None:
    """The places of one round: those who have more to visit are handed on by their next place."""
    onward = []
    found = [row for batch in rows for row in batch.to_pylist()]
    if found:
        key = found[0].get("place", found[0]["id"])
        write_line(folder / "begun.log", f"{number} {range_of(key, SHARDS)}")
    for row in found:
        for mine in turn:
            trouble(mine, number, folder)
            if mine.wanted_back():
                write_line(folder / "given_back.log", f"{number} {os.getpid()}")
                raise GivenBack
        if row["places"] > 0:
            _once(folder, f"{row['id'].hex()}.{number}")
            place = identify(row["id"] + row.get("place", b""))
            onward.append({"place": place, "id": row["id"], "places": row["places"] - 1})
    write_line(folder / "tasks.log", f"{number} {os.getpid()}")
    if number == ROUNDS - 1:
        return None
    return iter([pa.RecordBatch.from_pylist(onward, ONWARD)] if onward else [])


def _once(folder: Path, name: str) -> None:
    if not (folder / "ledger" / name).exists():
        write_line(folder / "visits.log", name)
        write_bytes(folder / "ledger" / name, b"")


def write_line(path: Path, line: str) -> None:
    """Whole, whoever else writes to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def told(rows: Iterable[pa.RecordBatch], folder: Path) -> Iterator[pa.RecordBatch]:
    for batch in rows:
        found = [
            {"id": i, "visits": len(list((folder / "ledger").glob(f"{i.hex()}.*")))}
            for i in batch["id"].to_pylist()
        ]
        yield pa.RecordBatch.from_pylist(found, VISITS)


def no_trouble(turn: Turn, number: int, folder: Path) -> None:
    """All goes well."""


def plan(
    folder: Path,
    *,
    count: int = 40,
    together: int = 1,
    trouble: Trouble = no_trouble,
    cpus: float = 1.0,
) -> tuple[Stage, ...]:
    """Walkers, and how many places each of them visited: those it wants, the rounds at most."""
    first, *rest = (
        partial(visit, number=number, folder=folder, trouble=trouble) for number in range(ROUNDS)
    )
    round_ = partial(Step, together=together, cpus=cpus, memory_gb=0.1)
    chain = [round_(run=first, schema=ONWARD, scatter="place", each=("walkers",))]
    chain += [round_(run=run, schema=ONWARD, scatter="place") for run in rest[:-1]]
    return (
        Stage(
            makes="walkers",
            version=1,
            main=Step(run=walkers, schema=WALKERS, over=(Item(count, "walkers"),), scatter="id"),
        ),
        Stage(
            makes="visits",
            version=1,
            before=(
                Step(run=nothing, schema=None, over=()),
                Step(run=nobody, schema=WALKERS, scatter="id", each=("walkers",)),
                Step(run=nothing, schema=None),
                Step(run=nothing, schema=None, over=()),
                *chain,
                round_(run=rest[-1], schema=None),
            ),
            main=Step(run=partial(told, folder=folder), schema=VISITS, each=("walkers",)),
        ),
    )


def wanted(count: int = 40) -> dict[bytes, int]:
    """How many places each walker visits."""
    return {identify(b"%d" % n): min(n % (ROUNDS + 2), ROUNDS) for n in range(count)}


def wait_until(seen: Callable[[], bool]) -> None:
    """A hang ends the test; nothing else depends on the deadline."""
    ends = time.monotonic() + DEADLINE_S
    while not seen():
        if time.monotonic() > ends:
            raise RuntimeError("waited in vain")
        time.sleep(0.01)


def first(path: Path, text: str) -> bool:
    """Whether this is the first to come here, or the same again; it leaves its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), path.open("x") as file:
        file.write(text)
    wait_until(lambda: path.read_text() != "")
    return path.read_text() == text


def wait_for_company(turn: Turn, number: int, folder: Path) -> None:
    """None goes on before others have begun in the same process."""
    wait_until(lambda: len(read_lines(folder / "begun.log")) > 2)
    assert first(folder / "pid", str(os.getpid()))


def wait_for_processes(turn: Turn, number: int, folder: Path, *, count: int) -> None:
    """None goes on before there are so many."""
    write_line(folder / "pids.log", str(os.getpid()))
    wait_until(lambda: len(set(read_lines(folder / "pids.log"))) >= count)


def one_explodes(turn: Turn, number: int, folder: Path) -> None:
    """The others go on until they are asked to stop."""
    wait_until(lambda: len(read_lines(folder / "begun.log")) > 2)
    if first(folder / "exploding", threading.current_thread().name):
        raise RuntimeError("a walker exploded")
    wait_until(turn.wanted_back)


def wait_for_the_stop(turn: Turn, number: int, folder: Path) -> None:
    write_line(folder / "pids.log", str(os.getpid()))
    wait_until(turn.wanted_back)


def deaf(turn: Turn, number: int, folder: Path) -> None:
    write_line(folder / "pids.log", str(os.getpid()))
    wait_until((folder / "open").exists)


def until_others_computed(turn: Turn, number: int, folder: Path) -> None:
    wait_until((folder / "computed").exists)


def killed_once(turn: Turn, number: int, folder: Path) -> None:
    """The first process to come here is killed, once some of its tasks are done."""
    with suppress(FileExistsError), (folder / "killed").open("x") as file:
        mine = f"0 {os.getpid()}"
        wait_until(lambda: mine in read_lines(folder / "tasks.log"))
        reports = folder.parent / "run"
        wait_until(lambda: any(reports.glob("visits/*/before/4/reports/*.json")))
        done = sorted(reports.glob("visits/*/before/4/reports/*.json"))
        file.write(" ".join(str(int(path.stem)) for path in done))
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def killed_always(turn: Turn, number: int, folder: Path) -> None:
    write_line(folder / "pids.log", str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


def slow_in_one_process(turn: Turn, number: int, folder: Path) -> None:
    """Tasks of the first process here wait until all but one are done, or they are wanted back."""
    if number == 0 and first(folder / "slow", str(os.getpid())):
        others = SHARDS - 1
        wait_until(lambda: turn.wanted_back() or len(read_lines(folder / "tasks.log")) >= others)


def compute(_: int, *, folder: Path) -> Iterator[pa.RecordBatch]:
    write_bytes(folder / "computed", b"")
    yield from walkers(1)


def beside(folder: Path) -> Stage:
    """A task that computes while others wait."""
    run = partial(compute, folder=folder)
    return Stage(makes="beside", version=1, main=Step(run=run, schema=WALKERS, over=(Item(0, ""),)))


def visited(folder: Path) -> Iterator[Item]:
    """What lies in the ledger by now."""
    write_line(folder / "asked.log", "asked")
    for path in sorted((folder / "ledger").glob("*.0")):
        yield Item(str(path), path.name)


def foresee(path: str, *, folder: Path) -> None:
    write_line(folder / "ahead.log", Path(path).name)


def foresee_nothing_good(path: str) -> None:
    raise RuntimeError(f"{Path(path).name} is not good")


def until_foreseen(turn: Turn, number: int, folder: Path) -> None:
    """The last round goes on once something was done for what the first left."""
    if number == ROUNDS - 1:
        foreseen = folder / "ahead.log"
        wait_until(lambda: turn.wanted_back() or len(read_lines(foreseen)) >= 3)


def after(folder: Path, run: Callable[..., None] | None = None) -> Stage:
    """A stage that stands on the visits and does something for each ahead."""
    step = Step(run=run or partial(foresee, folder=folder), schema=None)
    return Stage(
        makes="after",
        version=1,
        ahead=Ahead(ready=partial(visited, folder), step=step),
        main=Step(run=same, schema=VISITS, each=("visits",)),
    )


def same(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from rows
