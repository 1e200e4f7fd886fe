"""A ledger with pages of a test's making, and what becomes of them."""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from crawl import documents, observations, pages, warc
from crawl.config import CrawlConfig
from crawl.schema import DOCUMENTS, Observation, PageOutcome
from tests import web

CONFIG = CrawlConfig(live=False, max_decoded_bytes=200_000)
MOMENT = datetime.datetime(2016, 5, 4, tzinfo=datetime.UTC)
SENTENCE = "The quick brown fox jumps over the lazy dog, as it has done for many years. "


def article(title: str = "A title", text: str = SENTENCE * 8) -> bytes:
    return (
        f"<html><head><title>{title}</title>"
        '<meta property="article:published_time" content="2015-03-02T10:00:00Z"></head>'
        f"<body><nav>Home About</nav><article><h1>{title}</h1><p>{text}</p></article>"
        "<footer>Imprint</footer></body></html>"
    ).encode()


class Shelf:
    """A ledger with pages of a test's making, each in a segment of its own, or together."""

    def __init__(self, folder: Path, config: CrawlConfig = CONFIG) -> None:
        self.folder = folder
        self.config = config
        self.addresses: list[str] = []
        self._writer: observations.Writer | None = None

    @contextlib.contextmanager
    def segment(self) -> Iterator[observations.Writer]:
        """One for all that is put here meanwhile."""
        low, high = observations.LOWEST, observations.HIGHEST
        with observations.Writer(self.folder, low, high, label="test") as self._writer:
            yield self._writer
        self._writer = None

    def put(
        self,
        path: str,
        body: bytes,
        *headers: tuple[str, str],
        outcome: str = "ok",
        said: str | None = None,
    ) -> None:
        if self._writer is None:
            with self.segment():
                self.put(path, body, *headers, outcome=outcome, said=said)
            return
        address = f"http://a.com/{path}"
        self.addresses.append(address)
        (link,) = web.links_to(address).to_pylist()
        answer = warc.Answer(200, "OK", headers, body)
        place = self._writer.archive(warc.Exchange(address, MOMENT, answer))
        row = Observation(
            link_id=link["link_id"],
            url_key=link["url_key"],
            url=address,
            outcome=PageOutcome(outcome),
            source="archive",
            status=200,
            final_url=address,
            content_type=answer.header("Content-Type"),
            fetched_at=MOMENT,
            ai_signals=said,
        )
        self._writer.append(row, place)

    def pages(self) -> list[pa.RecordBatch]:
        links = web.links_to(*self.addresses)
        return list(pages.fetch([links], str(self.folder), self.config))

    def documents(
        self, batches: list[pa.RecordBatch] | None = None, prepared: Path | None = None
    ) -> dict[str, dict[str, Any]]:
        where = str(self.folder), self.config, str(prepared) if prepared else None
        made = list(documents.extract(batches or self.pages(), *where))
        assert all(batch.schema == DOCUMENTS for batch in made)
        return {row["url"][13:]: row for batch in made for row in batch.to_pylist()}
