"""The loopback web: any number of virtual hosts on one port, as well or as badly behaved as a test
wants, with a log of what was asked when.

    with web.serve() as site:
        site.page("a.web.test", "/x", "<p>text")
        config = CrawlConfig(resolve=site.resolve, ...)
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from crawl import canonical, url
from crawl.schema import LINKS
from tests import web_server
from tests.web_answers import HTML, chunked, gzipped, redirect, response
from tests.web_log import Hit, ListLog
from tests.web_server import Answer, Handler

__all__ = ["HTML", "Handler", "Hit", "Site", "chunked", "endless", "gzipped", "hang", "links_to",
           "redirect", "response", "serve", "slam"]  # fmt: skip


@dataclass
class Site:
    """What the web holds. Unknown hosts and paths are answered with 404."""

    port: int = 0
    routes: dict[tuple[str, str], Answer] = field(default_factory=dict)
    log: ListLog = field(default_factory=ListLog)

    @property
    def resolve(self) -> dict[str, str]:
        """`[crawl.resolve]` that leads here."""
        return {"*.web.test": f"127.0.0.1:{self.port}", "*.other.test": f"127.0.0.1:{self.port}"}

    def route(self, host: str, path: str, answer: Answer) -> None:
        """Answers a path with these bytes, as they are, or by a coroutine."""
        self.routes[host, path] = answer

    def page(self, host: str, path: str, html: str) -> None:
        """A page that is as it should be."""
        self.route(host, path, response(200, html.encode(), {"Content-Type": HTML}))

    def robots(self, host: str, text: str, status: int = 200) -> None:
        """The robots.txt of a host."""
        answer = response(status, text.encode(), {"Content-Type": "text/plain"})
        self.route(host, "/robots.txt", answer)

    def paths(self, host: str) -> list[str]:
        """What was asked of a host, in order."""
        return [hit.path for hit in self.log if hit.host == host]

    def find(self, hit: Hit) -> Answer:
        """What a request is answered with."""
        return self.routes.get((hit.host, hit.path), response(404, b"not here"))


async def hang(writer: asyncio.StreamWriter) -> None:
    """Never answers."""
    await asyncio.sleep(60)


async def endless(writer: asyncio.StreamWriter) -> None:
    """A body without an end."""
    writer.write(response(200, b"<html>", length=False))
    while True:
        writer.write(b"<p>more" * 1000)
        await writer.drain()


async def slam(writer: asyncio.StreamWriter) -> None:
    """Closes the connection without a word."""
    writer.transport.abort()


@contextlib.contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A web that lives in a thread of its own, for as long as the context."""
    site = Site()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(web_server.listen(site, "127.0.0.1", 0, tls=tls))
    site.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def links_to(*addresses: str, outcome: str = "kept") -> pa.RecordBatch:
    """Rows of LINKS for these URLs, sorted as they must be."""
    rows = []
    for address in addresses:
        key = canonical.url_key(address)
        rows.append(
            {
                "link_id": canonical.link_id(key),
                "url_key": key,
                "fetch_url": address,
                "host": url.host(address),
                "karma": 3,
                "submissions": ["p"],
                "subreddits": [],
                "first_seen": None,
                "outcome": outcome,
            }
        )
    rows.sort(key=lambda row: row["link_id"])
    return pa.RecordBatch.from_pylist(rows, LINKS)
