"""One task: a step on one shard. All that a worker runs.

Idempotent: the report is written last, and where it stands the task does nothing. So a lost machine
is only a retry, and a killed run goes on where it was.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from pipeline.failures import Changed
from pipeline.manifest import Report, Tally, Written
from pipeline.stage import Phase, Stage, Step
from pipeline.store import Dataset, digest_of, read_as, write_json, write_rows, write_scattered

Key = tuple[str, Phase, int]


@dataclass(frozen=True)
class Task:
    """One step of a stage on one item, shard or partition."""

    stage: Stage
    phase: Phase
    index: int
    output: Dataset
    inputs: Mapping[str, Dataset]

    @property
    def step(self) -> Step:
        """The step it runs."""
        step = self.stage.before if self.phase == "before" else self.stage.main
        assert step is not None
        return step

    @property
    def key(self) -> Key:
        """Its name in a run."""
        return self.stage.makes, self.phase, self.index

    @property
    def folder(self) -> Path:
        """Where its files go."""
        return before(self.output).folder if self.phase == "before" else self.output.folder


def before(dataset: Dataset) -> Dataset:
    """What a stage's `before` step scattered, as a dataset."""
    return Dataset(
        f"{dataset.name} before",
        dataset.fingerprint,
        dataset.folder / "before",
        dataset.shards,
        scattered=True,
    )


def report_of(folder: Path, index: int) -> Report | None:
    """The report of a task that is done; `Damaged` where it is torn: without it, the task is done
    anew."""
    path = folder / "reports" / f"{index:05d}.json"
    return read_as(path, Report) if path.exists() else None


def run(task: Task) -> Report:
    """Do the task, unless it is done."""
    done = report_of(task.folder, task.index)
    if done:
        return done
    _require_still(task)
    started = time.perf_counter()
    left_out: Counter[str] = Counter()
    tally = Tally(task.stage.counted if task.phase == "main" else (), task.stage.volatile)
    batches = task.step.run(*arguments(task), *([left_out] if task.step.counts else []))
    if batches is not None:
        _write(task, tally.watch(batches))
    _require_still(task)
    report = Report(
        index=task.index,
        rows=tally.rows,
        set_hash=tally.set_hash,
        counts={column: dict(values) for column, values in tally.counts.items()},
        left_out=dict(left_out),
        files=[_written(path) for path in sorted(task.folder.glob(f"{task.index:05d}.*"))],
        seconds=round(time.perf_counter() - started, 3),
    )
    write_json(task.folder / "reports" / f"{task.index:05d}.json", msgspec.to_builtins(report))
    return report


def arguments(task: Task) -> list[Any]:
    """What the step's function is called with, in the order of `Step`'s fields."""
    step, index, inputs = task.step, task.index, task.inputs
    values: list[Any] = []
    if task.phase == "main" and task.stage.before and task.stage.before.schema:
        values.append(before(task.output).read(index))
    if step.over is not None:
        values.append(step.over[index])
    values += [inputs[name].read(index, step.columns.get(name)) for name in step.each]
    values += [inputs[name].all(step.columns.get(name)) for name in step.whole]
    values += [inputs[name].rows for name in step.lookup]
    return values


def _require_still(task: Task) -> None:
    """`Changed` where the leaf is not the one whose digest the generation is named by."""
    if task.step.over is None or not task.step.stamps:
        return
    path, stamp = Path(task.step.over[task.index]), task.step.stamps[task.index]
    if not path.exists():
        return  # who reads it says so
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) == (stamp.bytes, stamp.mtime_ns):
        return
    # Another machine may see another time of the same file.
    if status.st_size != stamp.bytes or digest_of(path) != stamp.digest:
        raise Changed(
            f"{path}: has changed since its digest was taken; when nobody writes to it any more, "
            "run the same command again"
        )


def _write(task: Task, batches: Iterator[pa.RecordBatch]) -> None:
    step, name = task.step, f"{task.index:05d}"
    path = task.folder / f"{name}.parquet"
    assert step.schema is not None
    if step.scatter:
        write_scattered(path, batches, step.schema, step.scatter, task.output.shards)
    elif step.sink:
        index = step.sink(batches, task.folder, name)
        write_rows(path, iter(index.to_batches()), index.schema)
    else:
        write_rows(path, batches, step.schema)


def _written(path: Path) -> Written:
    return Written(name=path.name, bytes=path.stat().st_size, digest=digest_of(path))
