"""What one owner hands to another: redirects that leave their domain, robots.txt files too.

A round asks what was handed over, politely, as its own, and hands on what leaves again. Rows are
scattered by `owner_id`, whose first bytes are those of the ids of the domain that is to act, so
that they come to the task that owns it. Rule: what was handed over is known from the ledger, so
that a task that is tried again asks nothing twice.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from crawl import canonical, url
from crawl.robots import Step
from crawl.schema import ID, PageOutcome
from crawl.work import Fetched, Handed

ROUNDS = 5
"""Rounds after the first, at most."""

HANDED = pa.schema(
    [
        pa.field("owner_id", ID, nullable=False),
        # page: a link at its target; robots: a robots.txt to be asked for; rules: what it said
        pa.field("kind", pa.string(), nullable=False),
        pa.field("link_id", ID),
        # the link's own URL; or the origin that the robots.txt speaks for
        pa.field("url", pa.string(), nullable=False),
        pa.field("target", pa.string()),
        pa.field("hops", pa.int32(), nullable=False),
        pa.field("times", pa.int32()),
        pa.field("passed", pa.list_(pa.string())),
        pa.field("status", pa.int32()),
        pa.field("body", pa.binary()),
    ]
)


def leaving(rows: pa.Table, max_redirects: int) -> list[Handed]:
    """The links that rows of the ledger say have left, and may go on: once for each target, with
    the number of times that one was led there."""
    gone = rows.filter(pc.equal(rows["outcome"], PageOutcome.REDIRECTED_OFFSITE.value))
    gone = gone.filter(pc.equal(gone["source"], "live")).sort_by("fetched_at")
    found: dict[tuple[bytes, str], Handed] = {}
    for row in gone.to_pylist():
        if (hops := _hops(row)) <= max_redirects:
            key = row["link_id"], row["final_url"]
            times = found[key].times + 1 if key in found else 1
            found[key] = Handed(row["link_id"], row["url"], row["final_url"], hops, times)
    return list(found.values())


def start(row: dict[str, str]) -> str:
    """What was asked for first, for a row of the ledger."""
    return str(_asked(row).get("start") or url.requested(row["url"]))


def looped(selected: pa.Table, rows: pa.Table) -> set[bytes]:
    """The links that have left for where they had been asked before: `selected` of all `rows`."""
    gone = selected.filter(pc.equal(selected["outcome"], PageOutcome.REDIRECTED_OFFSITE.value))
    gone = gone.filter(pc.equal(gone["source"], "live"))
    rows = rows.filter(pc.is_in(rows["link_id"], value_set=pc.unique(gone["link_id"])))
    asked = {(row["link_id"], start(row)) for row in rows.to_pylist()}
    led = zip(gone["link_id"].to_pylist(), gone["final_url"].to_pylist(), strict=True)
    return {one for one, target in led if (one, target) in asked}


def unasked(handed: Iterable[Handed], rows: pa.Table) -> list[Handed]:
    """Those at whose target nobody has asked yet, or not as often as they were led there."""
    known = Counter((row["link_id"], start(row)) for row in rows.to_pylist())
    return [one for one in handed if known[one.link_id, one.target] < one.times]


def within(
    visits: Iterable[Handed], visited: pa.Table, own: Mapping[str, int], most: int
) -> list[Handed]:
    """The visits that the budgets of their hosts have room for, by id: `most` pages of each, those
    of its `own` links and of those who came before counted. The others go no further."""
    came = {(row["link_id"], start(row)) for row in visited.to_pylist()}
    taken = Counter(url.host(target) for _, target in came)
    found = []
    for one in sorted(visits, key=lambda one: (one.link_id, one.target)):
        host = url.host(one.target)
        if (one.link_id, one.target) not in came:
            if own.get(host, 0) + taken[host] >= most:
                continue
            taken[host] += 1
        found.append(one)
    return found


def table(
    leaving: Iterable[Handed], elsewhere: Iterable[Step] = (), fetched: Iterable[Fetched] = ()
) -> pa.Table:
    """The rows that a task hands over, in a fixed order."""
    found = [
        _row(
            "page", one.target, one.url, one.target, one.hops, link_id=one.link_id, times=one.times
        )
        for one in leaving
    ]
    found += [
        _row("robots", step.target, step.origin, step.target, len(step.passed), passed=step.passed)
        for step in elsewhere
    ]
    found += [
        _row("rules", one.origin, one.origin, None, 0, status=one.status, body=one.body)
        for one in fetched
    ]
    order = [(name, "ascending") for name in ("owner_id", "kind", "url", "target")]
    return pa.Table.from_pylist(found, HANDED).sort_by(order)


def read(
    batches: Iterable[pa.RecordBatch], token: str
) -> tuple[list[Handed], list[Step], dict[str, Fetched]]:
    """What was handed to a task: links, each once, robots.txt files to ask for, and what others
    said."""
    pages: dict[tuple[bytes, str], Handed] = {}
    files, rules = [], {}
    for batch in batches:
        for row in batch.to_pylist():
            address, target = row["url"], row["target"]
            if row["kind"] == "page":
                one = Handed(row["link_id"], address, target, row["hops"], row["times"])
                known = pages.setdefault((one.link_id, target), one)
                pages[one.link_id, target] = max(known, one, key=lambda one: one.times)
            elif row["kind"] == "robots":
                files.append(Step(address, token, target, tuple(row["passed"])))
            else:
                rules[address] = Fetched(address, row["status"], row["body"] or b"")
    return list(pages.values()), files, rules


def of(rows: pa.Table, handed: Iterable[Handed]) -> pa.Table:
    """The rows of the ledger about what was handed to a task."""
    meant = {(one.link_id, one.target) for one in handed}
    told = zip(rows.select(["link_id", "url", "asked"]).to_pylist(), strict=True)
    return rows.filter(
        pa.array([(row["link_id"], start(row)) in meant for (row,) in told], pa.bool_())
    )


def _row(
    kind: str, owner: str, address: str, target: str | None, hops: int, **rest: object
) -> dict[str, object]:
    owner_id = canonical.link_id(canonical.url_key(owner))
    told = {"owner_id": owner_id, "kind": kind, "url": address, "target": target, "hops": hops}
    return told | rest


def _asked(row: dict[str, str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(row["asked"] or "{}")
    return found


def _hops(row: dict[str, str]) -> int:
    hops = _asked(row).get("hops", 0)
    return int(hops) if isinstance(hops, int) else 0
