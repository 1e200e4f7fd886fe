"""Selects, of all that the ledger holds of a link, the one observation that is its page.

Rule: what is selected depends on the set of observations and on the link's first post alone, so who
wrote when, and what twice, changes no dataset.
"""

import pyarrow as pa
import pyarrow.compute as pc

from crawl.schema import LINKS as ALL_OF_LINKS
from crawl.schema import RESPONSE_COLUMNS, PageOutcome

LINKS = pa.schema([ALL_OF_LINKS.field("link_id"), ALL_OF_LINKS.field("first_seen")])
"""What is asked of the links."""


def select(rows: pa.Table, links: pa.Table) -> pa.Table:
    """One row a link, sorted by id, with `days_from_post`: the days from the link's first post to
    the capture, null where there is no date.

    A good one comes before a failure: an archived one before a live one, then the nearest to the
    day of the post, then the earliest. Of failures, the archives' come first, the earliest of them;
    of the live web's the latest counts, of a link that was asked again. At last all that a page or
    a text depends on decides, before the names of files. The outcomes of `rows` are those that
    count: what is not to be used has to have the outcome that says so. `links` has the columns of
    `LINKS`, sorted by id.
    """
    days = _days_from_post(rows, links)
    is_good = pc.equal(rows["outcome"], PageOutcome.OK.value)
    is_asked = pc.and_not(pc.equal(rows["source"], "live"), is_good)
    moment = rows["fetched_at"].cast(pa.int64())
    keys = {
        "is_bad": pc.invert(is_good),
        "distance": pc.if_else(is_asked, 0, pc.abs(days).fill_null(0)),
        "moment": pc.if_else(is_asked, pc.negate(moment), moment),
    }
    table = rows.append_column("days_from_post", days)
    for name, column in keys.items():
        table = table.append_column(name, column)
    columns = ["link_id", "is_bad", "source", "distance", "moment", *RESPONSE_COLUMNS,
               "warc_file", "warc_offset"]  # fmt: skip
    ordered = table.sort_by([(column, "ascending") for column in columns])
    return firsts(ordered.drop_columns(list(keys)))


def firsts(ordered: pa.Table) -> pa.Table:
    """The first row of each link of a table that is sorted by `link_id`."""
    if len(ordered) < 2:
        return ordered
    ids = ordered["link_id"].combine_chunks()
    is_first = pc.not_equal(ids[1:], ids[:-1])
    return ordered.filter(pa.concat_arrays([pa.array([True]), is_first]))


def _days_from_post(rows: pa.Table, links: pa.Table) -> pa.ChunkedArray:
    places = pc.index_in(rows["link_id"], value_set=links["link_id"].combine_chunks())
    posted = links["first_seen"].combine_chunks().cast(pa.int32()).take(places)
    captured = rows["fetched_at"].cast(pa.date32()).cast(pa.int32())
    return pc.subtract(captured, posted)
