"""One task: a step on one shard. All that a worker runs.

Idempotent: the report is written last, and where it stands the task does nothing. So a lost machine
is only a retry, and a killed run goes on where it was.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from pipeline import leaf
from pipeline.failures import Changed
from pipeline.manifest import Report, Tally, Written
from pipeline.scatter import Beat, Scatter
from pipeline.stage import MAIN, Account, Item, Phase, Stage, Step, Turn
from pipeline.store import Dataset, digest_of, read_as, write_json, write_rows

Key = tuple[str, Phase, int]
Called = Callable[[], Iterator[pa.RecordBatch] | None]


@dataclass(frozen=True)
class Task:
    """One step of a stage on one item, shard or partition."""

    stage: Stage
    phase: Phase
    index: int
    output: Dataset
    inputs: Mapping[str, Dataset]
    makes: str = ""
    """Names the rows it leaves, of a task that reads one leaf and nothing else."""

    @property
    def step(self) -> Step:
        """The step it runs."""
        return dict(self.stage.steps())[self.phase]

    @property
    def item(self) -> Item | None:
        """The leaf it reads, if it does."""
        return self.step.over[self.index] if self.step.over is not None else None

    @property
    def key(self) -> Key:
        """Its name in a run."""
        return self.stage.makes, self.phase, self.index

    @property
    def folder(self) -> Path:
        """Where its files go."""
        return left_by(self.output, self.phase).folder


def left_by(dataset: Dataset, phase: Phase) -> Dataset:
    """What a step of the dataset's stage leaves: of the chain before `main`, what it scattered."""
    if phase == MAIN:
        return dataset
    return Dataset(
        f"{dataset.name} {phase}",
        dataset.fingerprint,
        dataset.folder / phase,
        dataset.shards,
        scattered=True,
    )


def report_of(folder: Path, index: int) -> Report | None:
    """The report of a task that is done; `Damaged` where it is torn: without it, the task is done
    anew."""
    path = folder / "reports" / f"{index:05d}.json"
    return read_as(path, Report) if path.exists() else None


def run(task: Task, turn: Turn | None = None) -> Report:
    """Do the task, unless it is done. `turn`: of one that runs together with others."""
    done = report_of(task.folder, task.index)
    if done:
        return done
    _require_still(task)
    started = time.perf_counter()
    account = Account()
    tally = Tally(task.stage.counted if task.phase == MAIN else (), task.stage.volatile)
    try:
        _do(task, _called(task, account, turn or Turn()), account, tally)
        _require_still(task)
    except Exception:
        # Another attempt, taken for lost, may have done it and cleared what this one worked on.
        if done := report_of(task.folder, task.index):
            return done
        raise
    report = Report(
        index=task.index,
        rows=tally.rows,
        set_hash=tally.set_hash,
        counts={column: dict(values) for column, values in tally.counts.items()},
        left_out={reason: count for reason, count in account.left_out.items() if count},
        faults=account.faults,
        makes=task.makes,
        files=[_written(path) for path in sorted(task.folder.glob(f"{task.index:05d}.*"))],
        seconds=round(time.perf_counter() - started, 3),
    )
    write_json(task.folder / "reports" / f"{task.index:05d}.json", msgspec.to_builtins(report))
    if task.step.scatter:
        _scattering(task).clear()
    return report


def _scattering(task: Task) -> Scatter:
    path, step = task.folder / f"{task.index:05d}.parquet", task.step
    assert step.scatter and step.schema is not None
    return Scatter(path, step.schema, step.scatter, task.output.shards)


def _called(task: Task, account: Account, turn: Turn) -> Called:
    """The step's function, to be called with all its arguments."""
    more = [account] * task.step.accounts + [turn] * (task.step.together > 1)
    return lambda: task.step.run(*arguments(task), *more)


def _do(task: Task, called: Called, account: Account, tally: Tally) -> None:
    """Run the step and write what it yields."""
    step, path = task.step, task.folder / f"{task.index:05d}.parquet"
    if step.scatter:
        _scatter(task, called, account, tally)
        return
    batches = called()
    if batches is None:
        return
    watched = tally.watch(batches)
    assert step.schema is not None
    if step.sink:
        index = step.sink(watched, task.folder, path.stem)
        write_rows(path, iter(index.to_batches()), index.schema)
    else:
        write_rows(path, watched, step.schema)


def _scatter(task: Task, called: Called, account: Account, tally: Tally) -> None:
    step, scatter = task.step, _scattering(task)
    beat = Beat(task.folder / f"{task.index:05d}.parquet")
    if step.accounts:
        scatter.resume(account)
    else:
        scatter.clear()
    for batch in called() or ():
        scatter.add(batch, account)
        if step.over:
            beat.tell(account)
    combine = partial(step.combine, account=account) if step.combine else None
    scatter.finish(combine, tally.watch)
    beat.end()


def arguments(task: Task) -> list[Any]:
    """What the step's function is called with, in the order of `Step`'s fields."""
    step, index, inputs = task.step, task.index, task.inputs
    values: list[Any] = list(_handed(task))
    if step.over is not None:
        values.append(step.over[index].of)
    values += [inputs[name].read(index, step.columns.get(name)) for name in step.each]
    values += [inputs[name].all(step.columns.get(name)) for name in step.whole]
    values += [inputs[name].rows for name in step.lookup]
    return values


def _handed(task: Task) -> Iterator[Iterator[pa.RecordBatch]]:
    """What the step before this one scattered, if it did."""
    earlier = task.stage.earlier(task.phase)
    if earlier and earlier[-1][1].scatter:
        left = left_by(task.output, earlier[-1][0])
        one_a_shard = task.step.over is None and not task.step.gather
        ranges = [task.index] if one_a_shard else range(left.shards)
        yield itertools.chain.from_iterable(map(left.read, ranges))


def _require_still(task: Task) -> None:
    """`Changed` where the leaf is not the one whose digest the generation is named by."""
    item = task.item
    if item is None or item.stamp is None:
        return
    now = leaf.look(item.path)
    if now is None or now == (item.stamp.bytes, item.stamp.mark):
        return  # who reads what is gone says so
    # Another machine may see another time of the same file.
    if now[0] != item.stamp.bytes or leaf.digest_of(item.path) != item.stamp.digest:
        raise Changed(
            f"{item.path}: has changed since its digest was taken; when nobody writes to it any "
            "more, run the same command again"
        )


def _written(path: Path) -> Written:
    return Written(name=path.name, bytes=path.stat().st_size, digest=digest_of(path))
