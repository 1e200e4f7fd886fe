"""What a stage is: a pure function from record batches to record batches, and what it reads.

Rule of this file: it knows no dataset by name and no machine. A stage is data that can be pickled,
so its functions are module-level functions or `functools.partial`s of them.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

Phase = str
"""Which step of a stage: `MAIN`, or `before/0`, `before/1` and so on of its chain."""
MAIN: Phase = "main"
Run = Callable[..., Iterator[pa.RecordBatch] | None]
Sink = Callable[[Iterator[pa.RecordBatch], Path, str], pa.Table]


class Stamp(NamedTuple):
    """A leaf file as it was: size, what tells a change of it (see `leaves`), digest of content."""

    bytes: int
    mark: str
    digest: str


@dataclass
class Account:
    """What a task tells of the leaf it reads, while it reads: kept beside its rows, so that it can
    go on after a kill."""

    left_out: Counter[str] = field(default_factory=Counter)
    """What it read and left out, by reason."""
    faults: list[str] = field(default_factory=list)
    """What could not be read: file, place, reason. The first of them."""
    place: int = 0
    """Where what was not read yet begins, in the reader's own terms; it begins there."""
    bytes_read: int = 0
    """Of the leaf as it lies there."""


class GivenBack(Exception):
    """Raised by a step of many tasks together, by one that has stopped at a whole place: what it
    did is durable, and the task goes on where it is begun again, here or elsewhere."""


class Turn:
    """What a task that shares its process with others may be told while it runs."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def want_back(self) -> None:
        """Ask the task to stop at the next whole place, and to raise `GivenBack`."""
        self.released.set()

    def wanted_back(self) -> bool:
        """Whether it is asked to; a step looks every few seconds."""
        return self.released.is_set()


@dataclass(frozen=True)
class Item:
    """A leaf file, or a part of one, that a task reads."""

    of: Any
    """What `run` is called with."""
    path: str
    bytes: int = 0
    """Of the file as it lies there: what progress is counted in."""
    content: str = ""
    """Names what it holds, whatever the file's name; empty where that is not known."""
    stamp: Stamp | None = None
    """What the file was when its digest was taken, where known: one that is another by now is not
    what the fingerprint says."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One kind of task. What it reads is handed to `run` in the order of the fields below.

    How many tasks: one for every item of `over`; one if `gather`; else one for every shard.
    """

    run: Run
    schema: pa.Schema | None
    """Columns of the rows it yields; None: the step is an effect and leaves only a report."""
    over: tuple[Item, ...] | None = None
    """What the story begins with; a task reads one of them."""
    each: tuple[str, ...] = ()
    """Datasets of which a task reads its own id range."""
    whole: tuple[str, ...] = ()
    """Datasets every task reads from end to end, as an iterator of batches."""
    lookup: tuple[str, ...] = ()
    """Datasets handed in as a function: (ids, columns) -> table of those rows, sorted by id."""
    after: tuple[str, ...] = ()
    """Datasets, of those above, that must be whole before the first task begins, although a task
    reads its own id range alone."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns to read of a dataset, where not all are needed."""
    gather: bool = False
    scatter: str | None = None
    """Binary column whose first four bytes say which id range a row belongs to: the file of a task
    then has a row group for every range, and is read range by range."""
    combine: Callable[..., pa.Table] | None = None
    """Of a step that scatters: (rows, account=) -> rows sorted by key, made of all the rows that
    one task has of some keys."""
    accounts: bool = False
    """Whether `run` takes an `Account` as its last argument, and begins at its place."""
    sink: Sink | None = None
    """Writes the rows in a form of its own and returns the index to be kept as Parquet."""
    together: int = 1
    """How many tasks may run at once in one long-lived process, each in a thread; then `run` takes
    a `Turn` as its very last argument. For tasks that wait for the world: they take none of the
    room of those that compute."""
    salvage: Callable[[float], None] | None = None
    """Of tasks that run together: saves for all what a process that was killed has left on its
    machine. Run there before its tasks are begun again elsewhere, and on every machine before the
    first of them; called with the seconds that it may wait for who is about to end."""
    cpus: float = 1.0
    """Of a task; where tasks run together, of the process that they share."""
    memory_gb: float = 1.0
    """The same."""

    def tasks(self, shards: int) -> int:
        """How many tasks it has when ids are split into this many ranges."""
        if self.over is not None:
            return len(self.over)
        return 1 if self.gather else shards


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What can be done for a stage before all that it reads is whole: an effect on items that
    become ready meanwhile. It is never needed: the stage's own tasks find what it left, or not."""

    ready: Callable[[], Iterable[Item]]
    """The items that are there by now, those that are done among them or not: told apart by their
    paths. Asked every few seconds."""
    step: Step
    """Run on each of them, once: an effect."""
    forget: Callable[[], None] | None = None
    """Takes away what it left, when the stage is whole."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What makes one dataset.

    The steps of the chain `before` run first, one after another, each whole before the next begins,
    and after them `main`. What one of the chain scatters is handed to the tasks of the next as
    their first argument: its own id range to the task of a shard, all ranges to any other.
    """

    makes: str
    version: int
    main: Step
    before: tuple[Step, ...] = ()
    ahead: Ahead | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings that change the content, by their path in the tree."""
    libraries: tuple[str, ...] = ()
    """Distributions whose version changes the content."""
    counted: tuple[str, ...] = ()
    """Columns whose values are counted in the report: outcomes, verdicts."""
    leaves: tuple[str, ...] = ()
    """Content digests of the leaf files it reads."""
    volatile: tuple[str, ...] = ()
    """Columns that record when and where the work was done; no part of the root hash."""

    def __post_init__(self) -> None:
        if any((step.schema is None) != (step.scatter is None) for step in self.before):
            raise ValueError(f"{self.makes}: a step of `before` scatters its rows, or has none")
        if self.ahead and self.ahead.step.schema is not None:
            raise ValueError(f"{self.makes}: what is done ahead leaves no rows")

    @property
    def reads(self) -> tuple[str, ...]:
        """The datasets this stage stands on, each once, in order."""
        names = [name for _, s in self.steps() for name in (*s.each, *s.whole, *s.lookup)]
        return tuple(dict.fromkeys(names))

    def steps(self) -> Iterator[tuple[Phase, Step]]:
        """Its steps in the order they run."""
        for place, step in enumerate(self.before):
            yield f"before/{place}", step
        yield MAIN, self.main

    def earlier(self, phase: Phase) -> list[tuple[Phase, Step]]:
        """The steps that are whole before that one begins, in the order they run."""
        return list(itertools.takewhile(lambda known: known[0] != phase, self.steps()))
