"""Asks the live web for the links that are kept, and selects for each the one observation that is
its page.

Rule: rows(pages) = rows(links kept), whatever the world does. What the ledger holds is not asked
again; what is asked is in the ledger before it is a row. One process at a time asks for a range of
ids: from the look into the ledger to the last row in it, the range is claimed.
"""

import datetime
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from crawl import claims, outcomes, rounds, selection, service, todo
from crawl import observations as ledger
from crawl.config import CrawlConfig
from crawl.notes import Notes
from crawl.schema import LINKS, OBSERVATIONS, PAGES, PageOutcome
from crawl.work import Handed, Work

VERSION = 2

BATCH_ROWS = 16384
LABEL = "live"
VISITORS = "v"
"""Begins the labels of those who write what was handed to them, whose ids lie anywhere; then comes
the range of ids that they own."""

Row = dict[str, Any]
Clock = Callable[[], float]
Now = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """The moment, to the millisecond that the ledger keeps."""
    moment = datetime.datetime.now(datetime.UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def ask(
    links: Iterable[pa.RecordBatch],
    observations: str,
    config: CrawlConfig,
    *,
    handed: Iterable[pa.RecordBatch] | None = None,
    wanted_back: Callable[[], bool] = lambda: False,
    clock: Clock = time.monotonic,
    now: Now = utc_now,
) -> Iterator[pa.RecordBatch]:
    """One round: asks the live web, politely, for the kept links of a range of ids that need it,
    and for what others `handed` over; yields what is to be handed on, as `rounds.HANDED`.

    `observations` is the ledger's folder. `clock` counts seconds, `now` tells the date. Raises
    BadInput for settings with which nobody should be asked, `claims.Held` where another process
    asks for the same range, `service.Released` where it was wanted back, `service.Stopped`, and
    `observations.Damaged` where the ledger lacks what was asked.
    """
    kept = todo.kept(pa.Table.from_batches(list(links), LINKS))
    told = pa.Table.from_batches([] if handed is None else list(handed), rounds.HANDED)
    pages, files, rules = rounds.read(told.to_batches(), config.product_token())
    # After the first round only who waited for a robots.txt is left.
    meant = kept if handed is None else todo.of_domains(kept, rules)
    if not config.live or not (pages or files or len(meant)):
        return
    folder = Path(observations)
    low, high = _range(kept["link_id"], told["owner_id"])
    label, whose = f"{VISITORS}{_hex(low)}{_hex(high)}", partial(_overlaps, low, high)
    journal = _journal(config)
    how: dict[str, Any] = {"journal": journal, "info": _info(config), "clock": clock, "now": now}
    with claims.claimed(folder, low, high, label=LABEL):
        ledger.recover(folder, low, high, label=LABEL, journal=journal)
        ledger.recover(folder, whose=whose, journal=journal)
        rows, visited = ledger.read(folder, low, high), _visited(folder, whose, pages)
        wanted = todo.of(meant, rows, config)
        visits = rounds.within(
            rounds.unasked(pages, visited),
            visited,
            todo.counts(kept, rows, config),
            config.max_pages_per_host,
        )
        with (
            ledger.Writer(folder, low, high, label=LABEL, **how) as writer,
            ledger.Writer(folder, ledger.LOWEST, ledger.HIGHEST, label=label, **how) as visitors,
            Notes(folder, low, high, label=LABEL, now=now) as notes,
        ):
            work = Work(writer, visitors, notes, wanted, visits, files, rules)
            if work.jobs():
                with service.shared(config, folder, clock, now) as crawler:
                    crawler.ask(work, wanted_back)
        own = ledger.read(folder, low, high, whose=LABEL.__eq__)
        visited = _visited(folder, whose, pages) if work.jobs() else visited
    _require_all(folder, wanted, own, work.waiting)
    _require_visits(folder, visits, visited, work.waiting)
    left = [
        # Of own links those that left in an earlier round were handed over then.
        *rounds.leaving(own if handed is None else _of(meant, own), config.max_redirects),
        *rounds.leaving(rounds.of(visited, pages), config.max_redirects),
        *(visit for visit in visits if visit.link_id in work.waiting),
    ]
    # Who waits for another robots.txt now needs those that were told before once more.
    told_again = rules.values() if work.waiting else ()
    yield from rounds.table(left, work.elsewhere, [*work.fetched, *told_again]).to_batches()


def crawl(
    links: Sequence[pa.RecordBatch], observations: str, config: CrawlConfig
) -> Iterator[pa.RecordBatch]:
    """Asks and fetches in one process that owns all ids: what it hands over comes back to it."""
    handed = list(ask(links, observations, config))
    for _ in range(rounds.ROUNDS):
        if handed:
            handed = list(ask(links, observations, config, handed=handed))
    yield from fetch(links, observations, config)


def fetch(
    links: Iterable[pa.RecordBatch], observations: str, config: CrawlConfig
) -> Iterator[pa.RecordBatch]:
    """One row for each kept link of a range of ids, sorted by id: of what the ledger holds.
    Nobody is asked. `observations` is the ledger's folder."""
    table = pa.Table.from_batches(list(links), LINKS)
    kept = todo.kept(table)
    if not len(kept):
        return
    folder = Path(observations)
    low, high = _range(kept["link_id"])
    # who has killed a crawl may go on with what it had: none recovers its journal any more
    ledger.recover(folder, low, high, journal=_journal(config))
    rows = outcomes.obeyed(ledger.read(folder, low, high), config.obey)
    chosen = selection.select(rows, kept)
    ends = dict.fromkeys(rounds.looped(chosen, rows), PageOutcome.REDIRECT_LOOP)
    over = todo.left_out(kept, rows, config).to_pylist()
    ends |= dict.fromkeys(over, PageOutcome.OVER_HOST_BUDGET)
    selected = {row["link_id"]: row for row in chosen.to_pylist()}
    pages = (
        _page(link, ends, selected.get(link["link_id"]), config.live) for link in kept.to_pylist()
    )
    while batch := list(itertools.islice(pages, BATCH_ROWS)):
        yield pa.RecordBatch.from_pylist(batch, PAGES)


def _journal(config: CrawlConfig) -> Path | None:
    """The folder on this machine's own disk where segments are open."""
    return Path(config.journal) if config.journal else None


def _info(config: CrawlConfig) -> dict[str, str]:
    """What the crawl says of itself at the head of each WARC file."""
    return {"robots": "RFC 9309", "http-header-user-agent": config.user_agent}


def _range(*ids: pa.ChunkedArray) -> tuple[bytes, bytes]:
    """The ids that a task speaks for: first and last of its own links, and of the domains that
    something was handed over to. There must be some."""
    ends = [pc.min_max(some) for some in ids if len(some)]
    return min(end["min"].as_py() for end in ends), max(end["max"].as_py() for end in ends)


def _hex(one: bytes) -> str:
    return one[: claims.RANGE_BYTES].hex()


def _overlaps(low: bytes, high: bytes, label: str) -> bool:
    """Whether a label is that of visitors who own some of a range of ids."""
    size = 2 * claims.RANGE_BYTES
    first, last = label[1 : 1 + size], label[1 + size :]
    return label.startswith(VISITORS) and first <= _hex(high) and last >= _hex(low)


def _of(links: pa.Table, rows: pa.Table) -> pa.Table:
    """The rows about some links."""
    return rows.filter(pc.is_in(rows["link_id"], value_set=links["link_id"].combine_chunks()))


def _visited(folder: Path, whose: Callable[[str], bool], handed: Sequence[Handed]) -> pa.Table:
    """What owners of the range found for links that were handed to them."""
    return ledger.read(folder, whose=whose) if handed else OBSERVATIONS.empty_table()


def _require_all(folder: Path, wanted: pa.Table, rows: pa.Table, waiting: set[bytes]) -> None:
    """Damaged where the ledger lacks what was asked."""
    seen = set(rows["link_id"].to_pylist()) | waiting
    if lost := [row["fetch_url"] for row in wanted.to_pylist() if row["link_id"] not in seen]:
        raise ledger.Damaged(
            f"{folder}: lacks {len(lost)} links that were asked for, among them {lost[0]}: check "
            "the disk, then run this again"
        )


def _require_visits(
    folder: Path, visits: Sequence[Handed], visited: pa.Table, waiting: set[bytes]
) -> None:
    asked = [one for one in visits if one.link_id not in waiting]
    if lost := rounds.unasked(asked, visited):
        raise ledger.Damaged(
            f"{folder}: lacks {len(lost)} links that were handed over and asked for, among them "
            f"{lost[0].target}: check the disk, then run this again"
        )


def _page(link: Row, ends: dict[bytes, PageOutcome], observed: Row | None, live: bool) -> Row:
    """The page of a link; `ends` are outcomes that no single observation says."""
    identity = {"link_id": link["link_id"], "url": link["fetch_url"]}
    end = ends.get(link["link_id"])
    if end == PageOutcome.OVER_HOST_BUDGET:
        return identity | {"outcome": end}
    if observed is None:
        # Whom the live web was not asked for waited for a robots.txt that led nowhere.
        missing = PageOutcome.ROBOTS_UNREACHABLE if live else PageOutcome.NOT_ARCHIVED
        return identity | {"outcome": missing}
    page = {name: observed[name] for name in PAGES.names} | identity
    return page | {"outcome": end} if end else page
