"""Facts of the first half: where links come from, what became of them, which hosts they are on."""

from bisect import bisect_right
from typing import Any

from pipeline.report.tables import Tables

HOSTS = 25
"""Rows of the table of hosts, by links and again by tokens."""
KARMA_EDGES = (0, 1, 2, 3, 5, 10, 20, 50, 100, 1_000, 10_000)
REPEATS_EDGES = (1, 2, 3, 4, 5, 10, 20, 50, 100)


def karma(tables: Tables) -> list[dict[str, Any]] | None:
    """Links by karma, and how many of them became documents of the corpus."""
    if not tables.have("links"):
        return None
    kept = "null"
    joined = "links"
    if tables.have("corpus"):
        kept = "count(*) filter (corpus.verdict = 'kept')"
        joined = "links left join corpus on corpus.document_id = links.link_id"
    found = []
    for low, high in zip(KARMA_EDGES, (*KARMA_EDGES[1:], None), strict=True):
        below = "true" if high is None else f"karma < {high}"
        floor = "true" if low == 0 else f"karma >= {low}"
        row = tables.one(
            f"select count(*) links, {kept} kept from {joined} where {floor} and {below}"
        )
        found.append({"from": low, "below": high, **row})
    return found


def repeats(tables: Tables) -> list[dict[str, Any]] | None:
    """Links by how many submissions each has, and how many submissions these are."""
    if not tables.have("links"):
        return None
    found: list[dict[str, Any]] = [
        {"from": low, "below": high, "links": 0, "submissions": 0}
        for low, high in zip(REPEATS_EDGES, (*REPEATS_EDGES[1:], None), strict=True)
    ]
    for times, links in tables.each("select len(submissions), count(*) from links group by 1"):
        row = found[bisect_right(REPEATS_EDGES, times) - 1]
        row["links"] += links
        row["submissions"] += times * links
    return found


def months(tables: Tables) -> list[dict[str, Any]] | None:
    """Submissions with a usable link, by month of their posting."""
    if not tables.have("submissions"):
        return None
    return tables.rows(
        "select strftime(day, '%Y-%m') as month, count(*) posts from submissions"
        " where day is not null group by 1 order by 1"
    )


def hosts(tables: Tables) -> dict[str, Any] | None:
    """The largest hosts before (by links) and after (by tokens), and how much the first ten
    hold."""
    if not tables.have("links", "pages", "corpus", "tokens"):
        return None
    query = """
        select regexp_replace(host, '^www[.]', '') host, count(*) links,
               count(*) filter (links.outcome = 'kept') followed,
               count(*) filter (pages.outcome = 'ok') fetched,
               count(*) filter (corpus.verdict = 'kept') kept,
               coalesce(sum(tokens.length), 0)::bigint tokens
        from links
        left join pages on pages.link_id = links.link_id
        left join corpus on corpus.document_id = links.link_id
        left join tokens on tokens.document_id = links.link_id
        group by 1"""
    ranked = "select * from (" + query + ") order by {0} desc, host limit {1}"
    share = "select coalesce(sum({0}) filter (place <= 10) / greatest(sum({0}), 1), 0) share from "
    share += "(select {0}, row_number() over (order by {0} desc, host) place from (" + query + "))"
    return {
        "hosts": tables.one(f"select count(*) n from ({query})")["n"],
        "by_links": tables.rows(ranked.format("links", HOSTS)),
        "by_tokens": tables.rows(ranked.format("tokens", HOSTS)),
        "ten_hold_of_links": float(tables.one(share.format("links"))["share"]),
        "ten_hold_of_tokens": float(tables.one(share.format("tokens"))["share"]),
    }


def fetches(tables: Tables) -> dict[str, Any] | None:
    """Crawl outcomes by source, HTTP statuses, and bytes."""
    if not tables.have("pages"):
        return None
    return {
        "outcomes": tables.rows(
            "select outcome, coalesce(source, 'not asked') source, count(*) pages,"
            " coalesce(sum(bytes), 0)::bigint bytes from pages group by all order by 3 desc, 1, 2"
        ),
        "statuses": tables.rows(
            "select status, count(*) pages from pages where status is not null"
            " group by 1 order by 2 desc, 1"
        ),
        "bytes": tables.log_histogram("pages", "bytes"),
    }
