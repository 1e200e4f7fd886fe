"""What the tests of the crawl share: the loopback web, settings that are quick, the real inputs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crawl import pages, rounds
from crawl.config import CrawlConfig
from crawl.schema import PAGES
from tests import web

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
