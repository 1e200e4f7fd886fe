"""The loopback web: any number of virtual hosts on one port, as well or as badly behaved as a test
wants, with a log of what was asked when.

    with web.serve() as site:
        site.page("a.web.test", "/x", "<p>text")
        config = CrawlConfig(resolve=site.resolve, ...)
"""

import asyncio
import contextlib
import gzip
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from crawl import canonical, url
from crawl.schema import LINKS

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Hit:
    """One request: when it had come in whole, in seconds of the monotonic clock."""

    host: str
    path: str
    at: float
    headers: dict[str, str]


@dataclass
class Site:
    """What the web holds. Unknown hosts and paths are answered with 404."""

    port: int = 0
    routes: dict[tuple[str, str], bytes | Handler] = field(default_factory=dict)
    log: list[Hit] = field(default_factory=list)

    @property
    def resolve(self) -> dict[str, str]:
        """`[crawl.resolve]` that leads here."""
        return {"*.web.test": f"127.0.0.1:{self.port}", "*.other.test": f"127.0.0.1:{self.port}"}

    def route(self, host: str, path: str, answer: bytes | Handler) -> None:
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

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(1)
            if first == b"\x16":  # TLS, of which this port knows nothing
                writer.write(response(400))
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.strip().split("\r\n")
            headers = dict(item.lower().split(": ", 1) for item in fields)
            host = headers["host"].partition(":")[0]
            path = line.split(" ")[1]
            self.log.append(Hit(host, path, time.monotonic(), headers))
            answer = self.routes.get((host, path), response(404, b"not here"))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client went away, as some tests make it
        finally:
            writer.close()


def response(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, length: bool = True
) -> bytes:
    """A whole HTTP/1.1 answer."""
    fields = {"Content-Type": HTML} | (headers or {})
    if length:
        fields["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Reason\r\n{head}\r\n".encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    """An answer that sends elsewhere."""
    return response(status, b"", {"Location": location})


def gzipped(html: str) -> bytes:
    """A page whose Content-Encoding is gzip."""
    body = gzip.compress(html.encode(), mtime=0)
    return response(200, body, {"Content-Encoding": "gzip"})


def chunked(html: str, size: int = 7) -> bytes:
    """A page that comes in chunks."""
    data = html.encode()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return response(200, body, {"Transfer-Encoding": "chunked"}, length=False)


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
    server = loop.run_until_complete(
        asyncio.start_server(site.serve_one, "127.0.0.1", 0, ssl=tls, backlog=256)
    )
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
