"""`webtext rebuild`: the plan of a recipe, made whole by one writer on one executor."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from functools import partial
from pathlib import Path

import click
import msgspec

from crawl import limits, service, steering
from crawl import status as crawled
from pipeline import config as settings
from pipeline import crawling, lease, manifest, progress, state, status
from pipeline.bounded import Bounded
from pipeline.config import Config
from pipeline.failures import BadInput
from pipeline.local import Local
from pipeline.plan import leaves_of, plan, stages
from pipeline.rebuild import Executor, rebuild
from pipeline.stage import Stage

FAULTS_SHOWN = 5
"""Of each dataset; the rest is in its manifest."""
ABANDONED_S = 3600.0
"""Seconds after its last byte from which nobody is writing a file of a few."""


def make(
    config: Config, *, address: str | None, local: bool, until: str | None, remake: str | None
) -> Iterator[str]:
    """Make what is missing; lines that say what is made anew and why, then what stands."""
    root, shards = Path(config.root), config.crawl.shards
    unread = stages(config, (), [])
    _refuse_unknown((until, remake), unread)
    if any(stage.makes == "pages" for stage in _upto(unread, until)):
        service.require_contact(config.crawl)
    leaves_of(config)  # missing files are told before the root is made
    with lease.hold(root, "rebuild"):
        _sweep(root, time.time())
        planned = _upto(plan(config), until)
        _record(root, config, remake, planned[-1].makes)
        states = state.inspect(planned, root, shards)
        for entry in states.values():
            if entry.reasons and entry.status != "whole":
                yield f"{entry.stage.makes} is made anew: {', '.join(entry.reasons)}"
        if any(entry.status != "whole" for entry in states.values()):
            ledger = _ready_to_crawl(root, config, states, address)
            reading = {
                name: partial(state.bytes_read, entry)
                for name, entry in states.items()
                if entry.stage.main.over and entry.status != "whole"
            }
            with (
                _executor(address, local, config.workers) as executor,
                progress.datasets(reading, ledger) as tell,
            ):
                if ledger:
                    links = states["links"].dataset
                    executor = Bounded(executor, ledger, config.crawl, links)
                rebuild(planned, root, shards, executor, tell)
        else:
            rebuild(planned, root, shards, Local(), lambda *_: None)
        found = state.inspect(planned, root, shards)
        _remade(root, found)
    for entry in found.values():
        yield from _faults(entry)
    yield status.table(status.rows_of(found))
    if until is None:
        hashes = {name: entry.dataset.manifest.set_hash for name, entry in found.items()}
        yield f"root hash {manifest.root_hash(hashes)}"


def _ready_to_crawl(
    root: Path, config: Config, states: Mapping[str, state.State], address: str | None
) -> Path | None:
    """Sees to it that the web can be asked, where it will be; the ledger's folder then. An earlier
    word to stop is taken back, one to pause is told. Raises BadInput, `limits.Short`."""
    if not config.crawl.live or states.get("pages") is None or states["pages"].status == "whole":
        return None
    ledger, path = root / "observations", root / steering.FILE
    said = steering.read(path)
    if address is None:  # elsewhere, who asks looks
        limits.require(config.crawl, ledger)
    crawled.clear(ledger)
    if said.state == "stop":
        steering.write(path, msgspec.structs.replace(said, state="run"))
    if said.state == "pause":
        click.echo(f"{path}: {crawling.STATES['pause']}", err=True)
    return ledger


def _faults(entry: state.State) -> Iterator[str]:
    """What could not be read of the leaves a dataset begins with: the first of it, and how much."""
    faults = entry.dataset.manifest.faults
    for fault in faults[:FAULTS_SHOWN]:
        yield f"{entry.stage.makes}: {fault}"
    if len(faults) > FAULTS_SHOWN:
        path = entry.dataset.folder / "manifest.json"
        yield f"{entry.stage.makes}: more that could not be read: {path}"


def _sweep(root: Path, now: float) -> None:
    """Remove what the killed left half written. An audit may be at work: it holds no root."""
    for left in root.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if left.stat().st_mtime < now - ABANDONED_S:
                left.unlink()


def _executor(address: str | None, local: bool, workers: int) -> AbstractContextManager[Executor]:
    if local:
        return closing(Local())
    from pipeline import cluster

    return cluster.executor(address, workers)


def _record(root: Path, config: Config, remake: str | None, last: str) -> None:
    """Write down what is asked for. A remake that was interrupted is gone on with: the same request
    does not begin another."""
    run = state.load_run(root)
    before = msgspec.json.encode(run)
    if remake is not None and remake not in run.remaking:
        run.remakes[remake] = run.remakes.get(remake, 0) + 1
        run.remaking[remake] = last
    run.settings = settings.tree(config)
    if msgspec.json.encode(run) != before:
        state.save_run(root, run)


def _remade(root: Path, found: Mapping[str, state.State]) -> None:
    """Forget the remakes of which all that was asked for is whole."""
    run = state.load_run(root)
    left = {name: last for name, last in run.remaking.items() if last not in found}
    if left != run.remaking:
        run.remaking = left
        state.save_run(root, run)


def _refuse_unknown(names: Sequence[str | None], plan: Sequence[Stage]) -> None:
    known = [stage.makes for stage in plan]
    for name in names:
        if name is not None and name not in known:
            raise BadInput(f"{name!r}: no such dataset; there are {', '.join(known)}")


def _upto(planned: tuple[Stage, ...], until: str | None) -> tuple[Stage, ...]:
    if until is None:
        return planned
    return planned[: [stage.makes for stage in planned].index(until) + 1]
