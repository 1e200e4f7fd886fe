"""What a stage is: a pure function from record batches to record batches, and what it reads.

Rule of this file: it knows no dataset by name and no machine. A stage is data that can be pickled,
so its functions are module-level functions or `functools.partial`s of them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

Phase = Literal["before", "main"]
Run = Callable[..., Iterator[pa.RecordBatch] | None]
Sink = Callable[[Iterator[pa.RecordBatch], Path, str], pa.Table]


class Stamp(NamedTuple):
    """A leaf file as it was: size, time of change, digest of its content."""

    bytes: int
    mtime_ns: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One kind of task. What it reads is handed to `run` in the order of the fields below.

    How many tasks: one for every item of `over`; one if `gather`; else one for every shard.
    """

    run: Run
    schema: pa.Schema | None
    """Columns of the rows it yields; None: the step is an effect and leaves only a report."""
    over: tuple[str, ...] | None = None
    """Leaf files that begin the story; a task reads one of them."""
    stamps: tuple[Stamp, ...] = ()
    """What they were when their digests were taken, where known: a file that is another one by now
    is not what the fingerprint says."""
    each: tuple[str, ...] = ()
    """Datasets of which a task reads its own id range."""
    whole: tuple[str, ...] = ()
    """Datasets every task reads from end to end, as an iterator of batches."""
    lookup: tuple[str, ...] = ()
    """Datasets handed in as a function: (ids, columns) -> table of those rows, sorted by id."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns to read of a dataset, where not all are needed."""
    gather: bool = False
    scatter: str | None = None
    """Binary column whose first four bytes say which id range a row belongs to: the file of a task
    then has a row group for every range, and is read range by range."""
    counts: bool = False
    """Whether `run` takes a Counter as its last argument, for what it leaves out, by reason."""
    sink: Sink | None = None
    """Writes the rows in a form of its own and returns the index to be kept as Parquet."""
    cpus: float = 1.0
    memory_gb: float = 1.0

    def tasks(self, shards: int) -> int:
        """How many tasks it has when ids are split into this many ranges."""
        if self.over is not None:
            return len(self.over)
        return 1 if self.gather else shards


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What makes one dataset.

    `before`, if there is one, runs first, and whole: what it scatters is handed to the tasks of
    `main` as their first argument, range by range.
    """

    makes: str
    version: int
    main: Step
    before: Step | None = None
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

    @property
    def reads(self) -> tuple[str, ...]:
        """The datasets this stage stands on, each once, in order."""
        names = [name for _, s in self.steps() for name in (*s.each, *s.whole, *s.lookup)]
        return tuple(dict.fromkeys(names))

    def steps(self) -> Iterator[tuple[Phase, Step]]:
        """Its steps in the order they run."""
        if self.before:
            yield "before", self.before
        yield "main", self.main
