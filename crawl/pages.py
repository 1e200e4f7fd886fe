"""Fetches the links that are kept, and selects for each the one observation that is its page.

Rule: rows(pages) = rows(links kept), whatever the world does. What the ledger holds is never asked
again; what is asked is in the ledger before it is a row. One process at a time asks for a range of
ids: from the look into the ledger to the last row in it, the range is claimed.
"""

import asyncio
import datetime
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from crawl import claims, crawler, selection
from crawl import observations as ledger
from crawl.config import CrawlConfig
from crawl.schema import LINKS, PAGES, LinkOutcome, PageOutcome

VERSION = 2

BATCH_ROWS = 16384
LABEL = "live"

Row = dict[str, Any]
Clock = Callable[[], float]
Now = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """The moment, to the millisecond that the ledger keeps."""
    moment = datetime.datetime.now(datetime.UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def fetch(
    links: Iterable[pa.RecordBatch],
    observations: str,
    config: CrawlConfig,
    *,
    clock: Clock = time.monotonic,
    now: Now = utc_now,
) -> Iterator[pa.RecordBatch]:
    """One row for each kept link of a range of ids, sorted by id.

    `observations` is the ledger's folder. Links without an observation are asked for on the live
    web, politely, if `config.live`. `clock` counts seconds, `now` tells the date. Raises BadInput
    for settings with which nobody should be asked, `claims.Held` where another process goes
    on crawling the same range, and `observations.Damaged` where the ledger lacks what was asked.
    """
    kept = _kept(links)
    if not kept:
        return
    folder, low, high = Path(observations), kept[0]["link_id"], kept[-1]["link_id"]
    with claims.claimed(folder, low, high, label=LABEL):
        ledger.recover(folder, low, high)
        rows = ledger.read(folder, low, high)
        over = _over_budget(kept, rows, config)
        todo = _without(kept, rows, over) if config.live else []
        if todo:
            with ledger.Writer(folder, low, high, label=LABEL, clock=clock) as writer:
                asyncio.run(crawler.crawl(todo, writer, config, clock, now))
            rows = ledger.read(folder, low, high)
    if todo and (lost := _without(kept, rows, over)):
        raise ledger.Damaged(
            f"{folder}: lacks {len(lost)} links that were asked for, among them "
            f"{lost[0]['fetch_url']}: check the disk, then run this again"
        )
    yield from _rows(kept, over, rows)


def _without(kept: list[Row], rows: pa.Table, over: set[bytes]) -> list[Row]:
    seen = set(rows["link_id"].to_pylist()) | over
    return [link for link in kept if link["link_id"] not in seen]


def _kept(links: Iterable[pa.RecordBatch]) -> list[Row]:
    table = pa.Table.from_batches(list(links), LINKS)
    table = table.filter(pc.equal(table["outcome"], LinkOutcome.KEPT.value))
    columns = ["link_id", "url_key", "fetch_url", "host", "first_seen"]
    kept: list[Row] = table.select(columns).sort_by("link_id").to_pylist()
    return kept


def _over_budget(kept: list[Row], rows: pa.Table, config: CrawlConfig) -> set[bytes]:
    """The links beyond what one host is asked for. Those that an archive has cost it nothing."""
    archived = set(rows.filter(pc.equal(rows["source"], "archive"))["link_id"].to_pylist())
    asked: Counter[str] = Counter()
    over = set()
    for link in kept:
        if link["link_id"] not in archived:
            asked[link["host"]] += 1
            if asked[link["host"]] > config.max_pages_per_host:
                over.add(link["link_id"])
    return over


def _rows(kept: list[Row], over: set[bytes], rows: pa.Table) -> Iterator[pa.RecordBatch]:
    links = pa.Table.from_pylist(kept, selection.LINKS)
    selected = {row["link_id"]: row for row in selection.select(rows, links).to_pylist()}
    pages = (_page(link, over, selected.get(link["link_id"])) for link in kept)
    while batch := list(itertools.islice(pages, BATCH_ROWS)):
        yield pa.RecordBatch.from_pylist(batch, PAGES)


def _page(link: Row, over: set[bytes], observed: Row | None) -> Row:
    identity = {"link_id": link["link_id"], "url": link["fetch_url"]}
    if link["link_id"] in over:
        return identity | {"outcome": PageOutcome.OVER_HOST_BUDGET}
    if observed is None:
        return identity | {"outcome": PageOutcome.NOT_ARCHIVED}
    return {name: observed.get(name) for name in PAGES.names} | identity
