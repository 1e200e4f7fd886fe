"""What the tests of the crawl share: the loopback web, settings that are quick, the real inputs."""

import asyncio
import datetime
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crawl import network, pages, rounds
from crawl.config import CrawlConfig
from crawl.network import Failure
from crawl.schema import LINKS, PAGES, PageOutcome
from crawl.warc import Exchange
from tests import web

LOCAL = "127.0.0.1"
MOMENT = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
DATA = Path(__file__).parents[3] / "shared" / "data"

Settings = Callable[..., CrawlConfig]


@pytest.fixture
def site() -> Iterator[web.Site]:
    with web.serve() as running:
        yield running


@pytest.fixture
def settings(site: web.Site) -> Settings:
    """Settings for the loopback web, with short delays; keywords replace them."""

    def made(**replaced: object) -> CrawlConfig:
        quick: dict[str, object] = {
            "user_agent": "webtext/1.0 (+https://example.org/bot)",
            "resolve": site.resolve,
            "min_delay_s": 0.01,
            "back_off_s": 0.01,
            "retries": 1,
            "timeout_s": 5.0,
            "latency_factor": 0.0,
            "tdm_file": False,
            "min_free_gb": 0.0,
        }
        return CrawlConfig(**(quick | replaced))  # type: ignore[arg-type]

    return made


@pytest.fixture
def anywhere(site: web.Site, settings: Settings) -> Settings:
    """Settings with which every host of .test is of the loopback web: a domain to each."""

    def made(**replaced: object) -> CrawlConfig:
        return settings(**{"resolve": {"*.test": f"127.0.0.1:{site.port}"}, **replaced})

    return made


@pytest.fixture(scope="session")
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"the real inputs are not here: {DATA}")
    return DATA


def crawl(config: CrawlConfig, folder: Path, *addresses: str) -> dict[str, dict[str, Any]]:
    """The pages of links to these addresses, by URL."""
    return rows(config, folder, [web.links_to(*addresses)])


def rows(
    config: CrawlConfig, folder: Path, links: list[pa.RecordBatch]
) -> dict[str, dict[str, Any]]:
    """The pages of links, by URL."""
    handed = list(pages.ask(links, str(folder), config))
    assert all(batch.schema == rounds.HANDED for batch in handed)
    batches = list(pages.fetch(links, str(folder), config))
    found = [row for batch in batches for row in batch.to_pylist()]
    assert all(batch.schema == PAGES for batch in batches)
    ids = [row["link_id"] for row in found]
    assert ids == sorted(ids)
    return {row["url"]: row for row in found}


class Owners:
    """The tasks of one crawl, each the owner of a range of ids, who ask together, round after
    round, and hand over to each other what leaves their domains."""

    def __init__(
        self, config: CrawlConfig, folder: Path, *addresses: str, count: int = 8, **how: Any
    ) -> None:
        """`how`: clock and now, as `pages.ask` takes them."""
        self.config, self.folder, self.count, self.how = config, folder, count, how
        links = web.links_to(*addresses).to_pylist()
        self.links = [
            pa.RecordBatch.from_pylist(rows, LINKS) for rows in self.shared_out(links, "link_id")
        ]
        self.handed: list[list[Any]] | None = None
        """What each was handed in the last round."""

    def of(self, one: bytes) -> int:
        """Whose an id is."""
        return one[0] * self.count // 256

    def ask(self, owner: int) -> list[Any]:
        """What one owner hands on of a round."""
        handed = None
        if self.handed is not None:
            handed = [pa.RecordBatch.from_pylist(self.handed[owner], rounds.HANDED)]
        found = pages.ask(
            [self.links[owner]], str(self.folder), self.config, handed=handed, **self.how
        )
        return [row for batch in found for row in batch.to_pylist()]

    def round(self) -> list[Any]:
        """All ask; returns what was handed on."""
        with ThreadPoolExecutor(self.count) as threads:
            found = [row for rows in threads.map(self.ask, range(self.count)) for row in rows]
        self.hand(found)
        return found

    def hand(self, found: Sequence[Any]) -> None:
        """Hands rows to their owners."""
        self.handed = self.shared_out(found, "owner_id")

    def shared_out(self, rows: Sequence[Any], column: str) -> list[list[Any]]:
        """The rows of each owner, in their order."""
        return [[row for row in rows if self.of(row[column]) == n] for n in range(self.count)]

    def crawl(self) -> dict[str, dict[str, Any]]:
        """All rounds; the pages by URL."""
        for _ in range(1 + rounds.ROUNDS):
            self.round()
        return self.pages()

    def pages(self) -> dict[str, dict[str, Any]]:
        """What the ledger makes of the links, by URL."""
        batches = [
            batch
            for links in self.links
            for batch in pages.fetch([links], str(self.folder), self.config)
        ]
        return {row["url"]: row for batch in batches for row in batch.to_pylist()}


def ask(config: CrawlConfig, *targets: str, **how: Any) -> list[Exchange | PageOutcome]:
    """The answers to all of these at once, or how asking ended."""

    async def one(session: network.Web, target: str) -> Exchange | PageOutcome:
        try:
            return await network.ask(session, target, MOMENT, **({"most": config.max_bytes} | how))
        except Failure as failure:
            return failure.outcome

    async def everything() -> list[Exchange | PageOutcome]:
        async with network.session(config) as session:
            return await asyncio.gather(*(one(session, target) for target in targets))

    return asyncio.run(everything())


def got(config: CrawlConfig, target: str = "http://a.web.test/", **how: Any) -> Exchange:
    (answer,) = ask(config, target, **how)
    assert isinstance(answer, Exchange), answer
    return answer
