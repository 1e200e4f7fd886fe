"""The crawl of a world that holds everything once: each link ends as it must, and the server's own
log holds nothing against who asked."""

from pathlib import Path

import pytest

from crawl import pages
from crawl.config import CrawlConfig
from tests import web, web_log, web_pages, web_robots, web_tls

DELAY_S = 0.05


def settings(served: web.Served) -> CrawlConfig:
    return CrawlConfig(
        user_agent="webtext/1.0 (+https://example.org/bot)",
        resolve=served.resolve,
        ca_file=served.ca_file,
        min_delay_s=DELAY_S,
        back_off_s=DELAY_S,
        max_delay_s=1.0,
        retries=1,
        timeout_s=3.0,
        max_bytes=1 << 20,
        min_free_gb=0.0,
    )


def crawled(world: web.World, links: list[str], folder: Path) -> None:
    """Crawls these links and compares with what must be."""
    with web.spawn(world, folder / "web") as served:
        batches = pages.crawl([web.links_to(*links)], str(folder / "ledger"), settings(served))
        found = {row["url"]: row["outcome"] for batch in batches for row in batch.to_pylist()}
    assert found == {link: world.expected(link) for link in links}
    held = web_log.violations(
        served.log,
        lambda host: max(DELAY_S, world.delay_of(host)),
        most=world.most,
        forbids=world.forbids,
    )
    assert [str(one) for one in held] == []
    assert served.log


def first_of_each(world: web.World, kind_of: str) -> list[str]:
    """One link of each kind of page, of robots.txt or of certificate."""
    found: dict[object, str] = {}
    for link in world.urls():
        number, path = world.place(link)
        kinds = {
            "pages": world.page_of(number, path),
            "robots": (world.robots_of(number), path.startswith("/private/")),
            "tls": world.tls_of(number),
        }
        found.setdefault(kinds[kind_of], link)
    return list(found.values())


def pages_of(kinds: set[str]) -> web.World:
    weights = dict.fromkeys(sorted(kinds), 1.0)
    return web.World(seed=1, hosts=4000, max_pages=3, robots={"open": 1}, pages=weights)


def robots_of(kinds: set[str]) -> web.World:
    weights = dict.fromkeys(sorted(kinds), 1.0)
    return web.World(seed=2, hosts=2000, max_pages=3, robots=weights, pages={"plain": 1})


def test_every_kind_of_page(tmp_path: Path) -> None:
    world = pages_of(set(web_pages.KINDS))
    links = first_of_each(world, "pages")
    assert len(links) == len(world.pages)
    crawled(world, links, tmp_path)


def test_every_kind_of_robots_txt(tmp_path: Path) -> None:
    world = robots_of(set(web_robots.KINDS))
    links = first_of_each(world, "robots")
    assert len(links) == 2 * len(world.robots)
    crawled(world, links, tmp_path)


def test_every_kind_of_certificate(tmp_path: Path) -> None:
    weights = dict.fromkeys(("none", *web_tls.KINDS), 1.0)
    world = web.World(seed=3, hosts=200, robots={"open": 1}, pages={"plain": 1}, tls=weights)
    links = first_of_each(world, "tls")
    assert len(links) == len(weights)
    crawled(world, links, tmp_path)


def test_many_links_of_proper_hosts_and_of_some_that_are_not(tmp_path: Path) -> None:
    usual = web_pages.PROPER
    world = web.World(
        seed=4, hosts=300, max_pages=12, robots=web_robots.PROPER, pages=usual, latency_s=0.005
    )
    crawled(world, list(world.urls()), tmp_path)


@pytest.mark.slow
def test_ten_thousand_hosts_of_all_kinds(tmp_path: Path) -> None:
    world = web.World(seed=5, max_pages=4, latency_s=0.005)
    assert world.hosts == 10_000
    crawled(world, list(world.urls()), tmp_path)
