"""What a person sees while work runs: bars on a terminal, else a line a dataset."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOOK_S = 0.5
"""How often the training's metrics are looked at."""


@contextmanager
def datasets() -> Iterator[Callable[[str, int, int], None]]:
    """A function to be told (dataset, tasks done, tasks in all)."""
    with _bars() as bars:
        ids: dict[str, TaskID] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in ids:
                ids[name] = bars.add_task(name, total=total)
            bars.update(ids[name], completed=done)
            if done == total and not bars.console.is_terminal:
                click.echo(f"{name}: whole", err=True)

        yield tell


@contextmanager
def training(metrics: Path, steps: int) -> Iterator[None]:
    """A bar that follows the run's `metrics.jsonl` while the block trains."""
    ended = threading.Event()
    with _bars() as bars:
        bar = bars.add_task("training", total=steps)

        def follow() -> None:
            while not ended.wait(LOOK_S):
                _show(bars, bar, metrics)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            _show(bars, bar, metrics)


def _show(bars: Progress, bar: TaskID, metrics: Path) -> None:
    from training.metrics import read

    lines = [line for line in read(metrics.parent) if "loss" in line] if metrics.exists() else []
    if lines:
        last = lines[-1]
        bars.update(bar, completed=last["step"], description=f"training, loss {last['loss']:.3f}")


def _bars() -> Progress:
    # Not rich's own guess: FORCE_COLOR would draw bars into a file.
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())
    return Progress(
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=False,
    )
