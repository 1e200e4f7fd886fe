"""The politeness bound of a crawl that is to begin: what its longest host takes, on any machines.

Rule: it counts what will be asked, by the same rules (`crawl/todo.py`), at the delays that are
known before anybody is asked: the recipe's least, and the Crawl-delays that earlier crawls met.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from crawl import notes, todo
from crawl import observations as ledger
from crawl.config import CrawlConfig
from crawl.steering import Steering

COLUMNS = (*todo.COLUMNS, "first_seen", "outcome")
"""Of the links."""
KNOWN = ("link_id", "outcome", "source")
"""Of the ledger."""


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """What politeness alone takes, and of whom."""

    seconds: float = 0.0
    host: str = ""
    """The longest."""
    pages: int = 0
    """That are asked of it."""
    delay_s: float = 0.0
    total: int = 0
    """Links that are asked for, of all hosts."""
    hosts: int = 0


def of(links: Iterable[pa.Table], folder: Path, config: CrawlConfig, said: Steering) -> Bound:
    """The bound for ranges of links, each with `COLUMNS`, whole hosts in each. `folder`: of the
    ledger; nobody may write to it meanwhile. Raises `observations.Damaged`."""
    delays = notes.delays(folder)
    found = Bound()
    for table in links:
        kept = todo.kept(table)
        if not len(kept):
            continue
        low, high = kept["link_id"][0].as_py(), kept["link_id"][-1].as_py()
        rows = ledger.read(folder, low, high, columns=KNOWN)
        found = _with(found, _allowed(todo.of(kept, rows, config), said), delays, config)
    return found


def _allowed(wanted: pa.Table, said: Steering) -> pa.Table:
    """Without what the operator denies."""
    if not (said.deny or said.allow):
        return wanted
    if any("://" in pattern for pattern in (*said.deny, *said.allow)):
        targets = wanted["fetch_url"].to_pylist()
        return wanted.filter(pa.array([not said.denies(one) for one in targets], pa.bool_()))
    hosts = pc.unique(wanted["host"])
    allowed = [host for host in hosts.to_pylist() if not said.denies(f"http://{host}/")]
    return wanted.filter(pc.is_in(wanted["host"], value_set=pa.array(allowed, pa.string())))


def _with(found: Bound, wanted: pa.Table, delays: dict[str, float], config: CrawlConfig) -> Bound:
    """A bound that knows of further links."""
    counts = pc.value_counts(wanted["host"].combine_chunks())
    found = msgspec.structs.replace(
        found, total=found.total + len(wanted), hosts=found.hosts + len(counts)
    )
    for host, pages in zip(
        counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True
    ):
        delay_s = max(config.min_delay_s, min(delays.get(host, 0.0), config.max_delay_s))
        seconds = pages * delay_s
        if config.max_host_s is not None:
            seconds = min(seconds, config.max_host_s)
        if (seconds, pages) > (found.seconds, found.pages):
            found = msgspec.structs.replace(
                found, seconds=seconds, host=host, pages=pages, delay_s=delay_s
            )
    return found
