"""Builds the embedded web: about a hundred and fifty hosts, a thousand pages and more, all outcomes
of a crawl among them.

Rule: `build` is a function of its arguments and of this Python installation; the same machine gives
the same bytes in any process.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Sequence

from pipeline.demo.answers import Answer, Site, failed, page, robots
from pipeline.demo.articles import Article, collect, edition
from pipeline.demo.layouts import LAYOUTS
from pipeline.demo.oddities import odd_hosts

LEAST_PAGES, LEAST_HOSTS = 90, 18
MIRROR = "www.mirror-shelf.test"
EDITIONS = "second-edition.test"
VOICES = "many-voices.test"
"""One registrable domain with several hosts: its sub-domains lie in one shard and share nothing
else."""

_FIRST = """
amber birch cedar delta ember fjord glade hazel ivory juniper kelp larch maple north ochre pebble
quartz river saffron thistle umber velvet willow xenial yarrow zephyr alder bramble clover dune
elder flint garnet heather indigo jasper kestrel linden meadow nettle
"""
_SECOND = """
docs notes library journal almanac workshop reader archive
"""
_RUN = 6
"""Neighbouring articles that stay together."""
_ALLOW_ALL = "User-agent: *\nDisallow: /search\nDisallow: /login\n"
_NOTICES = (
    "This page was looked through again; small errors were put right.",
    "Second edition: a few sentences were made shorter and one example was taken out.",
    "The older edition of this page stays where it was.",
)
# One word in so many is exchanged. Each costs five of the 5-word shingles, so the Jaccard
# similarity of an edition with its original is about (1 - 5/n) / (1 + 5/n): 0.95, 0.88, 0.78, 0.54:
# both sides of every usual threshold.
_EDITS = (200, 80, 40, 16)


@functools.cache
def build(pages: int = 1200, hosts: int = 150) -> Site:
    """The site with exactly so many pages (robots.txt is none) on so many hosts.

    At least 90 pages on 18 hosts: fewer would not hold every outcome. Raises ValueError below.
    """
    if pages < LEAST_PAGES or hosts < LEAST_HOSTS:
        raise ValueError(f"the embedded web needs {LEAST_PAGES} pages on {LEAST_HOSTS} hosts")
    supply = _supply()
    odd = odd_hosts(supply, max(1, pages // 400))
    left = pages - len(odd.fates())
    copies = max(4, left // 16)
    names = _names(hosts - len(odd.hosts) - 2)
    originals = list(itertools.islice(supply, left - 3 * copies))
    plain = _plain_hosts(names, originals)
    chosen = originals[:: max(1, len(originals) // (2 * copies))]
    revised = [
        _revise(one, number)
        for number, one in enumerate(itertools.islice(itertools.cycle(chosen), 2 * copies))
    ]
    mirrored = list(itertools.islice(itertools.cycle(reversed(chosen)), copies))
    return Site(
        {
            **odd.hosts,
            **plain,
            MIRROR: _host(MIRROR, mirrored, 3),
            EDITIONS: _host(EDITIONS, revised, 1),
        }
    )


def _supply() -> Iterator[Article]:
    """All articles, then later editions of them; whatever is taken first is of all kinds.

    Runs of neighbours (a module, its functions, its classes) stay together, so that hosts have a
    subject; the runs come in an order that spreads over the whole list.
    """
    every = collect()
    if not every:
        raise RuntimeError("no text was found here: is Python's standard library complete?")
    runs = [every[start : start + _RUN] for start in range(0, len(every), _RUN)]
    # multiples of the golden ratio, modulo 1, fill the unit interval evenly at every length
    order = sorted(range(len(runs)), key=lambda place: (place * 0.6180339887498949) % 1)
    spread = [article for place in order for article in runs[place]]
    return itertools.chain(
        spread, (_revise(one, number) for number, one in enumerate(itertools.cycle(spread)))
    )


def _revise(article: Article, number: int) -> Article:
    return edition(article, _EDITS[number % len(_EDITS)], _NOTICES[number % len(_NOTICES)])


def _names(count: int) -> list[str]:
    """Host names, nearly all of different registrable domains; every twelfth is a sub-domain of
    one."""
    words, seconds = _FIRST.split(), _SECOND.split()
    names = []
    for number in range(count):
        first, second = words[number % 40], seconds[(number // 40 + number) % 8]
        again = f"-{number // 320}" if number >= 320 else ""
        name = f"{first}-{second}{again}.test"
        if number % 12 == 5:
            name = f"{words[number // 12 % 40]}{again}.{VOICES}"
        names.append(f"www.{name}" if number % 3 == 0 else name)
    return names


def _plain_hosts(names: Sequence[str], articles: Sequence[Article]) -> dict[str, dict[str, Answer]]:
    """Deals runs of neighbouring articles to the hosts: few large hosts, many small ones, as on the
    real web."""
    weights = [1 / (number + 4) for number in range(len(names))]
    spare = len(articles) - len(names)
    shares = [1 + int(spare * weight / sum(weights)) for weight in weights]
    for number in range(len(articles) - sum(shares)):
        shares[number % len(shares)] += 1
    ends = list(itertools.accumulate(shares))
    return {
        name: _host(name, articles[end - share : end], number)
        for number, (name, share, end) in enumerate(zip(names, shares, ends, strict=True))
    }


def _host(name: str, articles: Sequence[Article], number: int) -> dict[str, Answer]:
    layout = LAYOUTS[number % len(LAYOUTS)]
    paths = [_path(number, place, one) for place, one in enumerate(articles)]
    answers = {"/robots.txt": robots(_ALLOW_ALL)} if number % 2 else {}
    for place, (path, article) in enumerate(zip(paths, articles, strict=True)):
        links = [(paths[other], articles[other].title) for other in _neighbours(place, len(paths))]
        # A link dies now and then even on a good host.
        dead = place % 25 == 24
        answers[path] = (
            failed(404) if dead else page(layout(name, article.title, article.html, links))
        )
    return answers


def _neighbours(place: int, count: int) -> list[int]:
    return [(place + step) % count for step in range(1, min(6, count))]


def _path(number: int, place: int, article: Article) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", article.key.lower()).strip("-")[:60]
    styles = (
        f"/{2012 + place % 6}/{1 + place % 12:02}/{slug}-{place}.html",
        f"/{slug}-{place}",
        f"/index.php?id={100 + place}",
        f"/articles/{slug}-{place}.html",
        f"/wiki/{slug}-{place}",
    )
    return styles[number % len(styles)]
