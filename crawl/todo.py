"""Which links are asked of the live web: pure, from the links, the ledger and the recipe.

Rule: what the ledger holds is not asked again, but for the outcomes that `crawl.retry` names, be
they of an archive; no host is asked for more links than `max_pages_per_host`, those of earlier
crawls counted, whatever archives have come since.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawl import url
from crawl.config import CrawlConfig
from crawl.schema import LinkOutcome, PageOutcome

COLUMNS = ["link_id", "fetch_url", "host"]


def kept(links: pa.Table) -> pa.Table:
    """The links that are to have a page, by id: link_id, fetch_url, host, first_seen."""
    table = links.filter(pc.equal(links["outcome"], LinkOutcome.KEPT.value))
    return table.select([*COLUMNS, "first_seen"]).sort_by("link_id")


def of(table: pa.Table, rows: pa.Table, config: CrawlConfig) -> pa.Table:
    """The links of `table` (as `kept` gives them) that are to be asked, sorted by host."""
    asked = pc.is_in(table["link_id"], value_set=_ids(rows))
    again = pc.is_in(table["link_id"], value_set=_again(rows, config))
    wanted = pc.or_(pc.invert(asked), again)
    over = pc.is_in(table["link_id"], value_set=over_budget(table, rows, config))
    found = table.filter(pc.and_(wanted, pc.invert(over)))
    return found.select(COLUMNS).sort_by([("host", "ascending"), ("link_id", "ascending")])


def over_budget(table: pa.Table, rows: pa.Table, config: CrawlConfig) -> pa.Array:
    """The ids beyond what one host is asked for: those that were asked count first, then by id.
    Those that an archive has cost it nothing, unless they are asked none the less."""
    live = _live(table, rows, config)
    if not len(live):
        return pa.array([], table.schema.field("link_id").type)
    fresh = pc.invert(pc.is_in(live["link_id"], value_set=_ids(_from(rows, "live"))))
    order = [("host", "ascending"), ("fresh", "ascending"), ("link_id", "ascending")]
    live = live.append_column("fresh", fresh).sort_by(order)
    hosts = pc.run_end_encode(live["host"].combine_chunks())
    ends = np.asarray(hosts.run_ends)
    starts = np.concatenate(([0], ends[:-1]))
    rank = np.arange(len(live)) - np.repeat(starts, ends - starts)
    return live.filter(pa.array(rank >= config.max_pages_per_host))["link_id"].combine_chunks()


def left_out(table: pa.Table, rows: pa.Table, config: CrawlConfig) -> pa.Array:
    """Of those, the ids that no archive has: they have no page."""
    over = over_budget(table, rows, config)
    return over.filter(pc.invert(pc.is_in(over, value_set=_ids(_from(rows, "archive")))))


def of_domains(table: pa.Table, origins: Iterable[str]) -> pa.Table:
    """The links of `table` to the registrable domains of some origins."""
    domains = {url.registrable_domain(url.host(origin)) for origin in origins}
    known = pc.unique(table["host"]).to_pylist() if domains else []
    hosts = [host for host in known if url.registrable_domain(host) in domains]
    return table.filter(pc.is_in(table["host"], value_set=pa.array(hosts, pa.string())))


def counts(table: pa.Table, rows: pa.Table, config: CrawlConfig) -> dict[str, int]:
    """How many of the links to each host are asked of the live web, now or ever."""
    counted = _live(table, rows, config)["host"].value_counts()
    return {one["values"]: one["counts"] for one in counted.to_pylist()}


def _live(table: pa.Table, rows: pa.Table, config: CrawlConfig) -> pa.Table:
    """The links that no archive has, and those that were asked all the same, or are to be."""
    ids = table["link_id"]
    archived = pc.is_in(ids, value_set=_ids(_from(rows, "archive")))
    asked = pc.is_in(ids, value_set=_ids(_from(rows, "live")))
    again = pc.is_in(ids, value_set=_again(rows, config))
    return table.filter(pc.or_(pc.invert(archived), pc.or_(asked, again)))


def _from(rows: pa.Table, source: str) -> pa.Table:
    return rows.filter(pc.equal(rows["source"], source))


def _ids(rows: pa.Table) -> pa.Array:
    return pc.unique(rows["link_id"])


def _again(rows: pa.Table, config: CrawlConfig) -> pa.Array:
    """Links whose every outcome is one to be tried again, and not yet as often as it may be: what
    archives have of one counts once. That one was led to another domain is no outcome where it has
    one from there."""
    if not config.retry:
        return _ids(rows.slice(0, 0))
    outcomes = pa.array([PageOutcome(one).value for one in config.retry])
    led = pc.equal(rows["outcome"], PageOutcome.REDIRECTED_OFFSITE.value)
    ended = _ids(rows.filter(pc.invert(led)))
    rows = rows.filter(pc.invert(pc.and_(led, pc.is_in(rows["link_id"], value_set=ended))))
    bad = pc.is_in(rows["outcome"], value_set=outcomes)
    settled = _ids(rows.filter(pc.invert(bad)))
    asked, archived = _from(rows, "live")["link_id"], _ids(_from(rows, "archive"))
    tried = pa.table({"link_id": pa.chunked_array([*asked.chunks, archived])})
    counts = tried.group_by("link_id").aggregate([("link_id", "count")])
    few = counts.filter(pc.less(counts["link_id_count"], config.asks))["link_id"]
    few = few.combine_chunks()
    return few.filter(pc.invert(pc.is_in(few, value_set=settled)))
