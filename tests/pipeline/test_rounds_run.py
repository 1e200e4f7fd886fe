"""Rounds through the pipeline: what leaves its domain is scattered to the owner of the other, who
asks; five times; and what a killed or another run finds in the ledger is not asked again."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from crawl import observations, rounds
from pipeline import config as settings
from pipeline import make, state
from pipeline.config import Config
from pipeline.failures import TaskFailed
from tests import web

PAGE = "<html><body><p>Some text.</p></body></html>"
LINKS = {
    "http://a.test/1": ("ok", "http://d.test/4"),
    "http://a.test/loop": ("redirect_loop", "http://b.test/loop"),
    "http://e.test/yes": ("ok", "http://e.test/yes"),
    "http://e.test/no": ("robots_disallowed", "http://e.test/no"),
    "http://f.test/": ("robots_disallowed", "http://e.test/no"),
    "http://g.test/": ("private_address", "http://10.0.0.1/"),
    "http://h.test/": ("ok", "http://h.test/"),
}


def serve(site: web.Site) -> None:
    """A chain over four domains, a loop over two, robots.txt files over three."""
    site.route("a.test", "/1", web.redirect("http://b.test/2"))
    site.route("b.test", "/2", web.redirect("http://www.b.test/2b"))
    site.route("www.b.test", "/2b", web.redirect("http://c.test/3"))
    site.route("c.test", "/3", web.redirect("http://d.test/4"))
    site.route("a.test", "/loop", web.redirect("http://b.test/loop"))
    site.route("b.test", "/loop", web.redirect("http://a.test/loop"))
    site.route("e.test", "/robots.txt", web.redirect("http://b.test/r1"))
    site.route("b.test", "/r1", web.redirect("http://c.test/r2"))
    site.robots("c.test", "User-agent: *\nDisallow: /nothing")
    rules = b"User-agent: *\nDisallow: /no"
    site.route("c.test", "/r2", web.response(200, rules, {"Content-Type": "text/plain"}))
    site.route("f.test", "/", web.redirect("http://e.test/no"))
    site.route("g.test", "/", web.redirect("http://10.0.0.1/"))
    for host, path in (("d.test", "/4"), ("e.test", "/yes"), ("e.test", "/no"), ("h.test", "/")):
        site.page(host, path, PAGE)


def made(folder: Path, site: web.Site, *words: str) -> Config:
    (folder / "links.txt").write_text("\n".join(LINKS))
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'root = "{folder}/run"\n[crawl]\nshards = 5\nmin_karma = 0\nmax_redirects = 8\n'
        f'submissions = ["{folder}/links.txt"]\n'
        'user_agent = "webtext-test/1.0 (+http://localhost/)"\n'
        "min_delay_s = 0.0\nlatency_factor = 0.0\ntdm_file = false\nmin_free_gb = 0.0\n"
        f'[crawl.resolve]\n"*.test" = "127.0.0.1:{site.port}"\n'
    )
    return settings.load(recipe, words)


def rebuild(config: Config) -> dict[str, tuple[str, str]]:
    """How each link ended, and where."""
    list(make.make(config, address=None, local=True, until="pages", remake=None))
    pages = state.datasets(Path(config.root))["pages"]
    rows = [row for batch in pages.all() for row in batch.to_pylist()]
    return {row["url"]: (row["outcome"], row["final_url"]) for row in rows}


def asked(site: web.Site) -> Counter[tuple[str, str]]:
    """How often each page was asked for."""
    of_robots = ("/robots.txt", "/r1", "/r2")
    return Counter((hit.host, hit.path) for hit in site.log if hit.path not in of_robots)


def test_links_that_leave_end_where_they_lead(tmp_path: Path) -> None:
    with web.serve() as site:
        serve(site)
        config = made(tmp_path, site)
        assert rebuild(config) == LINKS
        once = asked(site)
        # the one that a loop came back to was asked twice: it might have been a cookie's wall
        assert {page for page, times in once.items() if times > 1} == {("a.test", "/loop")}
        # other settings make the dataset anew, and ask nobody
        again = made(tmp_path, site, "crawl.max_pages_per_host=19999")
        assert rebuild(again) == LINKS
        assert asked(site) == once


def test_a_round_that_fails_when_all_is_asked_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every task of every round fails once, before what it hands over is kept."""
    table, failed = rounds.table, set[tuple[bytes, ...]]()

    def fails_once(*told: Any) -> Any:
        found = table(*told)
        told_to = tuple(found["owner_id"].to_pylist())
        if told_to and told_to not in failed:
            failed.add(told_to)
            raise OSError("the machine is gone")
        return found

    with web.serve() as site:
        serve(site)
        monkeypatch.setattr(rounds, "table", fails_once)
        for _ in range(40):
            try:
                found = rebuild(made(tmp_path, site))
                break
            except TaskFailed:
                continue
        assert len(failed) >= 5
        assert found == LINKS
        assert {page for page, times in asked(site).items() if times > 1} == {("a.test", "/loop")}
        rows = observations.read(tmp_path / "run" / "observations")
        assert len(rows) == 14  # each of these requests once
