"""A story in miniature of errands: each walker visits a few places, one a round, and where the next
place lies in another range of ids, its owner goes on in the next round.

What was visited lies in a ledger of small files, so that nothing is visited twice, whoever is
killed when; `visits.log` tells every visit that was really made, `tasks.log` every task that began.
"""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from pipeline.stage import Item, Stage, Step
from pipeline.store import write_bytes

ID = pa.binary(16)
WALKERS = pa.schema([("id", ID), ("places", pa.int64())])
ONWARD = pa.schema([("place", ID), ("id", ID), ("places", pa.int64())])
VISITS = pa.schema([("id", ID), ("visits", pa.int64())])
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
    rows: Iterable[pa.RecordBatch], *, number: int, folder: Path
) -> Iterator[pa.RecordBatch] | None:
    """The places of one round: those who have more to visit are handed on by their next place."""
    onward = []
    for row in (row for batch in rows for row in batch.to_pylist()):
        if row["places"] > 0:
            _once(folder, f"{row['id'].hex()}.{number}")
            place = identify(row["id"] + row.get("place", b""))
            onward.append({"place": place, "id": row["id"], "places": row["places"] - 1})
    write_line(folder / "tasks.log", f"visit {number} {os.getpid()}")
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


def plan(folder: Path, count: int = 40) -> tuple[Stage, ...]:
    """Walkers, and how many places each of them visited: those it wants, the rounds at most."""
    first, *rest = (partial(visit, number=number, folder=folder) for number in range(ROUNDS))
    chain = [Step(run=first, schema=ONWARD, scatter="place", each=("walkers",))]
    chain += [Step(run=run, schema=ONWARD, scatter="place") for run in rest[:-1]]
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
                Step(run=rest[-1], schema=None),
            ),
            main=Step(run=partial(told, folder=folder), schema=VISITS, each=("walkers",)),
        ),
    )


def wanted(count: int = 40) -> dict[bytes, int]:
    """How many places each walker visits."""
    return {identify(b"%d" % n): min(n % (ROUNDS + 2), ROUNDS) for n in range(count)}
