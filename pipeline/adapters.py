"""The crawl's functions as a stage calls them: what it reads first, then its account or turn.

Rule of this file: it decides nothing. Who asks the web must learn nothing of tasks, and the tasks
nothing of the web; that each is heard by the other is all that is done here.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from crawl import archives, pages, repeats, service, slices, submissions
from crawl import observations as ledger
from crawl.config import CrawlConfig
from crawl.streams import Part
from pipeline.config import Config
from pipeline.stage import Account, GivenBack, Item, Turn


def read(part: Part, account: Account, *, config: Config) -> Iterator[pa.RecordBatch]:
    """Submissions of a dump, or of a part of one."""
    return submissions.read(part, config.crawl, account)


def combine(table: pa.Table, account: Account) -> pa.Table:
    """What one reader has of some links, as a row for each."""
    return repeats.combine(table, account.left_out)


def ask(
    kept: Iterable[pa.RecordBatch],
    turn: Turn,
    *,
    handed: Iterable[pa.RecordBatch] | None = None,
    observations: str,
    config: CrawlConfig,
) -> Iterator[pa.RecordBatch]:
    """One round of the live web: of own links the first."""
    try:
        yield from pages.ask(
            kept, observations, config, handed=handed, wanted_back=turn.wanted_back
        )
    except service.Released as error:
        raise GivenBack from error


def follow(
    handed: Iterable[pa.RecordBatch],
    kept: Iterable[pa.RecordBatch],
    turn: Turn,
    *,
    observations: str,
    config: CrawlConfig,
) -> Iterator[pa.RecordBatch]:
    """A later round: what others handed over, and who waited for it."""
    return ask(kept, turn, handed=handed, observations=observations, config=config)


def fetch(
    *read: Iterable[pa.RecordBatch], observations: str, config: CrawlConfig
) -> Iterator[pa.RecordBatch]:
    """Pages, of what is in the ledger."""
    # What was handed over in the last round, if there was one, nobody asks any more.
    return pages.fetch(read[-1], observations, config)


def replay(
    path: str,
    kept: Iterable[pa.RecordBatch],
    account: Account,
    *,
    observations: str,
    config: Config,
) -> None:
    """An archive into the ledger."""
    archives.replay(path, kept, observations, config.crawl, account.left_out)


def copy(
    chosen: Iterable[pa.RecordBatch], account: Account, *, observations: str, config: Config
) -> None:
    """Captures that an index named into the ledger."""
    slices.copy(chosen, observations, config.crawl, account.left_out)


def segments(observations: str) -> Iterator[Item]:
    """The whole segments of the ledger by now."""
    return (Item(str(path), path.name) for path in ledger.whole(Path(observations)))


def salvage(wait_s: float, *, observations: str, journal: str) -> None:
    """Into the ledger what was killed on this machine has left in its journal."""
    ledger.salvage(Path(observations), Path(journal), wait_s=wait_s)
