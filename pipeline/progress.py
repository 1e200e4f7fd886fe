"""What a person sees while work runs: bars on a terminal, else a line a dataset; of a crawl what
its processes tell, live on a terminal, else a line a minute."""

import datetime
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import click
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from crawl import status
from crawl.status import Status
from pipeline import crawling, trainings
from pipeline.store import size
from training import status as trained

LOOK_S = 0.5
"""How often work that others do is looked at."""
LINE_S = 60.0
"""Between two lines about one reader, where there is no terminal."""


Tell = Callable[[str, int, int], None]
Read = Callable[[], tuple[int, int]]
"""How many bytes of its leaves a dataset has read, of how many."""


class Bars(Progress):
    """Bars, and below them what a crawl does now."""

    crawl: Status | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn."""
        yield from super().get_renderables()
        if self.crawl:
            for place, told in enumerate(crawling.lines(self.crawl)):
                yield Text(f"{'' if place else 'crawl':9}{told}", no_wrap=True, overflow="ellipsis")


class Crawl:
    """What is told of the crawl whose ledger is in a folder; looked at now and then."""

    def __init__(self, ledger: Path, bars: Bars) -> None:
        self._ledger, self._bars = ledger, bars
        self._told_at: float | None = None
        self._told = Status()

    def look(self, now: float) -> None:
        """Shows how it stands. `now`: seconds since 1970."""
        found = self._bars.crawl = status.total(self._ledger, now)
        if found is None:
            return
        if found.state != self._told.state:
            click.echo(crawling.STATES[found.state], err=True)
        if found.complaint and found.complaint != self._told.complaint:
            click.echo(found.complaint, err=True)
        self._told = found
        self._told_at = self._told_at or now
        if not self._bars.console.is_terminal and now - self._told_at >= LINE_S:
            self._told_at = now
            click.echo(crawling.line(found), err=True)


@contextmanager
def datasets(
    reading: Mapping[str, Read] | None = None, ledger: Path | None = None
) -> Iterator[Callable[[str, int, int], None]]:
    """A function to be told (dataset, tasks done, tasks in all). Of datasets in `reading` the bytes
    are shown that they have read, and how long the rest will take; of the crawl that writes to
    `ledger`, how it goes."""
    with _bars() as bars:
        ids: dict[str, TaskID] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in ids:
                ids[name] = bars.add_task(name, total=total, amount="")
            bars.update(ids[name], completed=done, amount=f"{done}/{total}")
            if done == total and not bars.console.is_terminal:
                click.echo(f"{name}: whole", err=True)

        with _followed(bars, reading or {}, ledger):
            yield tell


@contextmanager
def _followed(bars: Bars, reading: Mapping[str, Read], ledger: Path | None) -> Iterator[None]:
    """A thread looks how far the readers and the crawl are, while the block runs."""
    crawl = Crawl(ledger, bars) if ledger else None
    ended = threading.Event()
    started = time.monotonic()
    begun: dict[str, int] = {}
    ids = {name: bars.add_task(f"{name}, read", total=None, amount="") for name in reading}
    last = dict.fromkeys(reading, started)

    def look() -> None:
        if crawl:
            crawl.look(time.time())
        for name, read in reading.items():
            done, total = read()
            # Not before the first look: what other generations gave is taken over by then.
            begun.setdefault(name, done)
            bars.update(ids[name], completed=done, total=total, amount=_amount(done, total))
            now = time.monotonic()
            if not bars.console.is_terminal and now - last[name] >= LINE_S and done < total:
                last[name] = now
                click.echo(line(name, begun[name], done, total, now - started), err=True)

    def follow() -> None:
        while not ended.wait(LOOK_S):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
        look()
    finally:
        ended.set()
        thread.join()


def line(name: str, begun: int, done: int, total: int, elapsed_s: float) -> str:
    """How far a reader is, and how long it will go on at the pace since this command began."""
    told = f"{name}: {_amount(done, total)} read"
    if done <= begun:
        return told
    left = datetime.timedelta(seconds=round((total - done) * elapsed_s / (done - begun)))
    return f"{told}, {left} left"


def _amount(done: int, total: int) -> str:
    return f"{size(done)} of {size(total)}"


@contextmanager
def training(folder: Path, steps: int, *, told: bool) -> Iterator[None]:
    """A bar that follows the run in `folder` while the block trains; where there is no terminal a
    line a minute. And what its ranks warn of, where it must be `told`: else they say it here."""
    ended = threading.Event()
    warnings = _Warnings(folder, told)
    with _bars(remaining=False) as bars:
        bar = bars.add_task("training", total=steps, amount="")

        def look() -> None:
            # What is just written anew may be half there, a network's disk may not answer: it is
            # but looked at, and the next look will see.
            with suppress(OSError, ValueError):
                _show(bars, bar, folder)
                warnings.look()

        def follow() -> None:
            told = time.monotonic()
            while not ended.wait(LOOK_S):
                look()
                if not bars.console.is_terminal and time.monotonic() - told >= LINE_S:
                    told = time.monotonic()
                    _say(folder)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            look()


def _say(folder: Path) -> None:
    with suppress(OSError, ValueError):
        found = trained.standing(folder, time.time())
        if found is not None:
            click.echo(trainings.line(found), err=True)


class _Warnings:
    """What ranks that have no terminal here write down for whoever looks on."""

    def __init__(self, folder: Path, told: bool) -> None:
        self._path = trained.warnings(folder)
        self._told = told
        self._read = self._path.stat().st_size if self._path.exists() else 0

    def look(self) -> None:
        """Say what is new."""
        if not self._told or not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        if whole:
            click.echo(whole.decode(), err=True)


def _show(bars: Progress, bar: TaskID, folder: Path) -> None:
    found = trained.standing(folder, time.time())
    if found is not None and found.loss is not None:
        shown = f"training, loss {found.loss:.3f}"
        steps = bars.tasks[bar].total or 0
        left = crawling.lasting((steps - found.step) * found.pace_s)
        amount = f"{found.step}/{steps:.0f} {found.tokens_per_s:,.0f} tokens/s, {left} left"
        bars.update(bar, completed=found.step, description=shown, amount=amount)


def _bars(*, remaining: bool = True) -> Bars:
    # Not rich's own guess: FORCE_COLOR would draw bars into a file.
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())
    return Bars(
        TextColumn("{task.description:24}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        *([TimeRemainingColumn()] if remaining else []),
        console=console,
        disable=not console.is_terminal,
        transient=False,
    )
