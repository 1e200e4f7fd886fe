"""The loopback web: any number of virtual hosts on one port, as well or as badly behaved as a test
wants, with a log of what was asked when.

    with web.serve() as site:
        site.page("a.web.test", "/x", "<p>text")
        config = CrawlConfig(resolve=site.resolve, ...)

`spawn` serves a whole world of hosts (`web_world.py`) from a process of its own; by hand:
`python -m tests.web PORT FOLDER '{"seed": 1, "hosts": 10000}'`, TLS on the port after it.
"""

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from crawl import canonical, url
from crawl.schema import LINKS
from tests import web_log
from tests.web_answers import HTML, chunked, gzipped, redirect, response
from tests.web_faults import endless, hang, slam
from tests.web_log import FileLog, Hit, ListLog
from tests.web_server import Answer, Handler, Ready, listen
from tests.web_tls import SHARED, Authority
from tests.web_world import World

__all__ = ["HTML", "Handler", "Hit", "Ready", "Served", "Site", "World", "chunked", "endless",
           "gzipped", "hang", "links_to", "redirect", "response", "serve", "serve_world", "slam",
           "spawn"]  # fmt: skip


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


@dataclass(frozen=True)
class Served:
    """A world that is being served, by this process or by one of its own."""

    world: World
    port: int
    tls_port: int
    ca_file: str | None = None
    log_file: Path | None = None

    @property
    def resolve(self) -> dict[str, str]:
        """`[crawl.resolve]` that leads here."""
        places = {"http": self.port, "https": self.tls_port}
        return {f"{scheme}://*.test": f"127.0.0.1:{port}" for scheme, port in places.items()}

    @property
    def log(self) -> list[Hit]:
        """The requests so far."""
        if self.log_file:
            return web_log.read(self.log_file) if self.log_file.exists() else []
        return list(self.world.log)  # type: ignore[arg-type]


@contextlib.contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A web that lives in a thread of its own, for as long as the context."""
    site = Site()
    with in_thread(lambda: listen(site, "127.0.0.1", 0, tls=tls)) as server:
        site.port = port_of(server)
        yield site


@contextlib.contextmanager
def serve_world(world: World, folder: Path) -> Iterator[Served]:
    """A whole world in a thread, for as long as the context; certificates lie in the folder."""
    authority = Authority(folder)
    contexts = authority.by_name(_kind_of(world))
    with (
        in_thread(lambda: listen(world, "127.0.0.1", 0)) as plain,
        in_thread(lambda: listen(world, "127.0.0.1", 0, tls=contexts)) as secure,
    ):
        yield Served(world, port_of(plain), port_of(secure), str(authority.ca_file))


@contextlib.contextmanager
def spawn(world: World, folder: Path) -> Iterator[Served]:
    """A whole world in a process of its own, which outlives whoever crawls it. Its log is written
    to the folder and can be read at any moment; it ends with the context, or with this process."""
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "requests.ndjson"
    told = {name: value for name, value in vars(world).items() if name not in ("log", "asked")}
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.web", "0", str(folder), json.dumps(told)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout
    with child:  # which closes its standard input
        ports = child.stdout.readline().split()
        if len(ports) != 2:
            raise RuntimeError("the loopback web could not be started: see what it wrote above")
        ca_file = str(folder / "ca.pem")
        yield Served(world, int(ports[0]), int(ports[1]), ca_file, log_file)


@contextlib.contextmanager
def in_thread(begin: Callable[[], Awaitable[asyncio.Server]]) -> Iterator[asyncio.Server]:
    """A server on a loop in a thread of its own; nothing of it is left afterwards."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def port_of(server: asyncio.Server) -> int:
    """Where a server listens."""
    return int(server.sockets[0].getsockname()[1])


def _kind_of(world: World) -> Callable[[str], tuple[str, tuple[str, ...]]]:
    def kind_of(name: str) -> tuple[str, tuple[str, ...]]:
        number = world.number(name)
        if number is None:
            return "good", ("default.test",)
        first = number - number % SHARED
        numbers = range(first, min(first + SHARED, world.hosts))
        names = [world.host(other) for other in numbers]
        return world.tls_of(number), (*names, *(f"www.{host}" for host in names))

    return kind_of


async def main(port: int, folder: Path, world: World) -> None:
    """Serves a world until nobody holds the other end of standard input; says its two ports."""
    world.log = FileLog(folder / "requests.ndjson")
    contexts = Authority(folder).by_name(_kind_of(world))
    plain = await listen(world, "127.0.0.1", port)
    secure = await listen(world, "127.0.0.1", port and port + 1, tls=contexts)
    print(port_of(plain), port_of(secure), flush=True)
    await asyncio.to_thread(sys.stdin.read)


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


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), World(**json.loads(sys.argv[3]))))
