"""The sections of the report on the first half, from dumps to pages: each a function of its facts
that returns HTML, as those of `sections.py` are.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.report import charts
from pipeline.report.elements import Figures, Rows, charted, of, percent, table, text, tiles
from pipeline.store import size


def left_out(found: Mapping[str, Any], figures: Figures) -> str:
    """What was read and is no link to follow, reason by reason."""
    del figures
    lines = _reasons("Lines of the dumps", found["submissions"])
    return f'<div class="two">{lines}{_reasons("Distinct links", found["links"])}</div>'


def _reasons(what: str, found: Mapping[str, Any] | None) -> str:
    head = f"<h3>{text(what)}</h3>"
    if found is None:
        return f'<div>{head}<p class="soft">Not made yet.</p></div>'
    of_all, reasons = found["of"], found["reasons"]
    rows = [
        [text(row["reason"].replace("_", " ")), text(row["count"]), percent(row["count"], of_all)]
        for row in reasons
    ]
    gone = sum(row["count"] for row in reasons)
    said = f"{text(gone)} of {text(of_all)} left out ({percent(gone, of_all)})."
    shown = table(["reason", "count", "share"], rows) if rows else ""
    return f"<div>{head}<p>{said}</p>{shown}</div>"


def faults(found: Mapping[str, Any], figures: Figures) -> str:
    """Lines and files that are damaged, and where the first of them stand."""
    del figures
    counts = tiles(
        [
            ("lines that are no submission", text(found["malformed"])),
            ("dumps that end too early", text(found["truncated"])),
        ]
    )
    first = found["first"]
    if not first:
        return counts
    which = "they" if len(first) == found["count"] else f"the first {len(first)}"
    rows = [[f"<code>{text(one)}</code>"] for one in first]
    return f"{counts}<h3>Where {which} stand</h3>{table(['file, place, reason'], rows)}"


def repeats(found: Rows, figures: Figures) -> str:
    """Links by how often they were posted."""
    labels = [_range(row["from"], row["below"]) for row in found]
    links, submissions = ([row[name] for row in found] for name in ("links", "submissions"))
    rows = [
        [label, text(one), percent(one, sum(links)), text(all_), percent(all_, sum(submissions))]
        for label, one, all_ in zip(labels, links, submissions, strict=True)
    ]
    chart = charts.bars(labels, {"links": links}, "submissions of a link")
    return (
        "<p>How many submissions a link has. A post counts once, however often it was read.</p>"
        + charted(figures, "repeats", chart)
        + table(["submissions of a link", "links", "share", "submissions", "share"], rows)
    )


def domains(found: Mapping[str, Any], figures: Figures) -> str:
    """Whose the links are, of all and of those to follow; and beside a list of others."""
    del figures
    columns = {"domain": "domain", "links": "links", "followed": "to follow"}
    before, after = (
        f"<div><h3>{title}</h3>{of(found[rows], columns)}</div>"
        for title, rows in (("Before: by links", "by_links"), ("After: to follow", "by_followed"))
    )
    html = (
        f"<p>{text(found['domains'])} registrable domains hold {text(found['links'])} links; "
        f"{text(found['domains_followed'])} of them hold the {text(found['followed'])} links to "
        f'follow.</p><div class="two">{before}{after}</div>'
    )
    return html + (_compared(found["compared"]) if found["compared"] else "")


def _compared(found: Mapping[str, Any]) -> str:
    head = ["name", "rank in the list", "count", "share", "rank here", "to follow", "share"]
    rows = [
        [
            text(row["name"]),
            text(row["rank"]),
            text(row["count"]),
            percent(row["share"], 1),
            text(row["our_rank"]),
            text(row["followed"]),
            percent(row["our_share"], 1),
        ]
        for row in found["top"]
    ]
    html = tiles(
        [
            ("rank correlation (Spearman)", text(found["correlation"])),
            ("names that stand in both", f"{text(found['shared'])} of {text(found['names'])}"),
            (
                f"of the list's first {found['first']}",
                f"{text(found['first_shared'])} of {text(found['first'])}",
            ),
            ("links to follow under its names", percent(found["followed_share"], 1)),
        ]
    )
    return (
        "<h3>Beside the list of compare_domains</h3><p>Domains go by their name without a public "
        "suffix. The list's shares are of all that it counts, the others of all links to follow; "
        "the correlation is over the names that stand in both.</p>"
        f"{html}{table(head, rows)}"
    )


def karma(found: Rows, figures: Figures) -> str:
    """Links by karma, with those that became documents of the corpus in front."""
    labels = [_range(row["from"], row["below"]) for row in found]
    series = {"links": [row["links"] for row in found]}
    rows = [
        [label, text(row["links"]), text(row["kept"]), percent(row["kept"], row["links"])]
        for label, row in zip(labels, found, strict=True)
    ]
    if all(row["kept"] is not None for row in found):
        series["in the corpus"] = [row["kept"] for row in found]
    return (
        "<p>A link's karma over all its submissions.</p>"
        + charted(figures, "karma", charts.bars(labels, series, "karma"))
        + table(["karma", "links", "in the corpus", "share"], rows)
    )


def _range(low: int, below: int | None) -> str:
    if below is None:
        return f"{low:,}+"
    return f"{low:,}" if below == low + 1 else f"{low:,}–{below - 1:,}"


def months(found: Rows, figures: Figures) -> str:
    """Submissions with a link, month by month."""
    labels = [row["month"] for row in found]
    span = f"{labels[0]} to {labels[-1]}"
    chart = charts.bars(labels, {"posts": [row["posts"] for row in found]}, span)
    return "<p>Submissions with a usable link, by month.</p>" + charted(figures, "months", chart)


def fetches(found: Mapping[str, Any], figures: Figures) -> str:
    """How asking for each link ended."""
    total = sum(row["pages"] for row in found["outcomes"])
    rows = [
        [
            text(row["outcome"].replace("_", " ")),
            text(row["source"]),
            text(row["pages"]),
            percent(row["pages"], total),
            size(row["bytes"]),
        ]
        for row in found["outcomes"]
    ]
    html = table(["outcome", "source", "links", "share", "bytes"], rows, 2)
    html += "<h3>HTTP status</h3>" + of(found["statuses"], {"status": "status", "pages": "links"})
    if found["bytes"]:
        chart = charts.histogram(found["bytes"], "bytes of a page", log=True)
        html += charted(figures, "page-bytes", chart, "Size of pages")
    return html


def hosts(found: Mapping[str, Any], figures: Figures) -> str:
    """Who the corpus is made of."""
    del figures
    columns = {
        "host": "host",
        "links": "links",
        "followed": "followed",
        "fetched": "fetched",
        "kept": "kept",
        "tokens": "tokens",
    }
    return (
        f"<p>{text(found['hosts'])} hosts (www. left out). The ten largest hold "
        f"{percent(found['ten_hold_of_links'], 1)} of the links and "
        f"{percent(found['ten_hold_of_tokens'], 1)} of the tokens.</p>"
        f"<h3>Before: by links</h3>{of(found['by_links'], columns)}"
        f"<h3>After: by tokens</h3>{of(found['by_tokens'], columns)}"
    )
