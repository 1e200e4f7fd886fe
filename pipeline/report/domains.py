"""Facts of the links' domains: before and after refusals, and beside a list of others' domains.

The list is a file as WebText's own (`domains.txt` of openai/gpt-2): one `count name` a line, the
largest first, a domain's name without its public suffix.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import Any

import numpy as np

from crawl import url
from pipeline.failures import BadInput
from pipeline.report.tables import Tables

DOMAINS = 50
"""Rows of each table of domains."""
FIRST = 100
"""Names at the list's head that are looked for."""
DECIMALS = 6
"""Of the correlation: the same on any machine."""
LINE = re.compile(rb"[ \t]*([1-9][0-9]{0,14})(?:[ \t]+(\S+))?\s*")
MAX_LINE_BYTES = 1000
BOM = b"\xef\xbb\xbf"

Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Listed:
    """A list of domains."""

    names: Mapping[str, int]
    """Count by name, in lower case; the largest first."""
    total: int
    """Sum of all counts, of lines without a name too."""


def read(path: Path) -> Listed:
    """The list in a file; BadInput where it cannot be read or is none.

    A line can hold a count alone, as one of WebText's does: what has no name.
    """
    try:
        with path.open("rb") as file:
            return _listed(path, iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""))
    except OSError as error:
        raise BadInput(f"compare_domains: {path}: {error.strerror or error}") from None


def _listed(path: Path, lines: Iterator[bytes]) -> Listed:
    names: dict[str, int] = {}
    total, last = 0, None
    for number, line in enumerate(lines, 1):
        if not (line := line.removeprefix(BOM) if number == 1 else line).strip():
            continue
        count, name = _parsed(line)
        if fault := _fault(count, name, last, names):
            raise BadInput(f"compare_domains: {path}: line {number}: {fault}")
        total, last = total + count, count
        if name:
            names[name] = count
    if not names:
        raise BadInput(f"compare_domains: {path}: holds no names")
    return Listed(names, total)


def _parsed(line: bytes) -> tuple[int, str]:
    """Count and name of a line; 0 where it is none."""
    found = LINE.fullmatch(line) if len(line) <= MAX_LINE_BYTES else None
    try:
        name = (found[2] or b"").decode().lower() if found else ""
    except UnicodeDecodeError:
        return 0, ""
    return (int(found[1]), name) if found and name.isprintable() else (0, "")


def _fault(count: int, name: str, last: int | None, names: Mapping[str, int]) -> str | None:
    if not count:
        return "is not a count and a name, as in `1542261 google`"
    if last is not None and count > last:
        return "counts more than the line before; the largest must come first"
    return f"{name} stands there twice" if name in names else None


def found(tables: Tables, listed: Listed | None) -> dict[str, Any] | None:
    """Registrable domains by all links and by those to follow; `compared` is None without a
    list."""
    if not tables.have("links"):
        return None
    links, followed, names = Counter[str](), Counter[str](), Counter[str]()
    query = "select host, count(*), count(*) filter (outcome = 'kept') from links group by 1"
    for host, all_, kept in tables.each(query):
        domain = url.registrable_domain(host)
        links[domain] += all_
        if kept:
            followed[domain] += kept
            if listed:
                names[url.domain_name(host)] += kept
    return {
        "domains": len(links),
        "domains_followed": len(followed),
        "links": links.total(),
        "followed": followed.total(),
        "by_links": _largest(links, links, followed),
        "by_followed": _largest(followed, links, followed),
        "compared": _compared(listed, names) if listed else None,
    }


def _largest(by: Counter[str], links: Counter[str], followed: Counter[str]) -> list[dict[str, Any]]:
    largest = nsmallest(DOMAINS, by, key=lambda domain: (-by[domain], domain))
    return [
        {"domain": domain, "links": links[domain], "followed": followed[domain]}
        for domain in largest
    ]


def _compared(listed: Listed, ours: Counter[str]) -> dict[str, Any]:
    """The list and our links to follow, by name: how many are in both and in how like an order."""
    first = list(listed.names)[:FIRST]
    both = [name for name in listed.names if name in ours]
    total = max(ours.total(), 1)
    theirs_down, ours_down = _downward(listed.names.values()), _downward(ours.values())
    return {
        "names": len(listed.names),
        "shared": len(both),
        "first": len(first),
        "first_shared": sum(name in ours for name in first),
        "followed_share": sum(ours[name] for name in both) / total,
        "correlation": spearman([listed.names[name] for name in both], [ours[n] for n in both]),
        "top": [
            {
                "name": name,
                "rank": _rank(theirs_down, count),
                "count": count,
                "share": count / listed.total,
                "our_rank": _rank(ours_down, ours[name]) if name in ours else None,
                "followed": ours[name],
                "our_share": ours[name] / total,
            }
            for name, count in list(listed.names.items())[:DOMAINS]
        ],
    }


def spearman(one: Sequence[int], other: Sequence[int]) -> float | None:
    """The rank correlation of two counts of the same things, equal counts sharing their mean rank.

    None for fewer than three things, or where all counts of a side are equal.
    """
    if len(one) < 3:
        return None
    x, y = (ranks - ranks.mean() for ranks in map(_mean_ranks, (one, other)))
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return round(float(x @ y) / spread, DECIMALS) if spread else None


def _mean_ranks(counts: Sequence[int]) -> Numbers:
    _, places, sizes = np.unique(np.array(counts), return_inverse=True, return_counts=True)
    ranks: Numbers = (np.cumsum(sizes) - (sizes - 1) / 2)[places]
    return ranks


def _downward(counts: Iterable[int]) -> list[int]:
    """The counts negated, the largest first: to be searched for a rank."""
    return sorted(-count for count in counts)


def _rank(downward: Sequence[int], count: int) -> int:
    """1 and how many count more."""
    return 1 + bisect_left(downward, -count)
