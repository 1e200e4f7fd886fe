"""Serves a `Site` on a loopback port: virtual hosts by the Host header, rude behaviours as told.

Rule: what is answered depends on the request alone; the log says when each request came, so that a
test can hold the crawler to its politeness. Everything ends when the context does.
"""

import asyncio
import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode, urlsplit

from pipeline.demo.answers import Answer, Site, failed

SLOW_S = 0.3
ENDLESS_BYTES = 64 << 20
"""Where an endless body ends after all, should the client never have enough."""
_TRACKING = ("utm_", "fbclid", "gclid")
_START_S = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request: monotonic seconds when its head was complete, host without port, path."""

    at: float
    host: str
    path: str


@dataclass(frozen=True)
class Served:
    """A site being served: `127.0.0.1:PORT` and the requests so far, in order."""

    address: str
    requests: list[Request] = field(default_factory=list)


@contextmanager
def serve(site: Site, port: int = 0) -> Iterator[Served]:
    """Serve the site in a thread until the block ends; port 0 takes a free one.

    Raises OSError where the port is taken.
    """
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setblocking(False)
    served = Served(f"127.0.0.1:{listener.getsockname()[1]}")
    started: queue.Queue[Callable[[], None]] = queue.Queue()
    running = _run(site, listener, served.requests, started.put)
    worker = threading.Thread(target=asyncio.run, args=(running,), name="embedded web", daemon=True)
    worker.start()
    stop = started.get(timeout=_START_S)
    try:
        yield served
    finally:
        stop()
        worker.join(_START_S)


async def _run(
    site: Site,
    listener: socket.socket,
    log: list[Request],
    tell: Callable[[Callable[[], None]], None],
) -> None:
    """Accept until the function handed to `tell` is called; then close every connection."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    clients: dict[asyncio.Task[None], socket.socket] = {}

    async def accept() -> None:
        while True:
            client, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(_connection(site, log, client))
            clients[task] = client
            task.add_done_callback(lambda task: clients.pop(task).close())

    accepting = asyncio.create_task(accept())

    def stop() -> None:
        loop.call_soon_threadsafe(stopped.set)

    tell(stop)
    await stopped.wait()
    listener.close()
    tasks = [accepting, *clients]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _connection(site: Site, log: list[Request], client: socket.socket) -> None:
    """Answer requests of one connection until either side has had enough."""
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        while True:
            method, target, host = _parse(await reader.readuntil(b"\r\n\r\n"))
            path = _plain_path(target)
            log.append(Request(time.monotonic(), host, path))
            if not await _give(_find(site, host, path), method, writer):
                break
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        pass  # the client went away or spoke no HTTP: nothing is left to answer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):  # the client went first
            await writer.wait_closed()


def _parse(head: bytes) -> tuple[str, str, str]:
    """Method, target and host (lower case, without port) of a request's head."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, *_ = [*first.split(" "), "", ""]
    pairs = (line.partition(":") for line in lines)
    fields = {name.lower(): value.strip().lower() for name, _, value in pairs}
    return method, target, fields.get("host", "").split(":")[0]


def _plain_path(target: str) -> str:
    """Path with query, as the site knows it: without tracking parameters and trailing slash."""
    parts = urlsplit(target)
    kept = [
        pair
        for pair in parse_qsl(parts.query, keep_blank_values=True)
        if not pair[0].startswith(_TRACKING)
    ]
    return (parts.path.rstrip("/") or "/") + (f"?{urlencode(kept)}" if kept else "")


def _find(site: Site, host: str, path: str) -> Answer:
    """The answer for a path with or without its last slash, on a host with or without `www.`."""
    bare = host.removeprefix("www.")
    paths = site.hosts.get(host) or site.hosts.get(bare) or site.hosts.get(f"www.{bare}") or {}
    return paths.get(path) or paths.get(path + "/") or failed(404)


async def _give(answer: Answer, method: str, writer: asyncio.StreamWriter) -> bool:
    """Send one answer as it behaves; True if the connection can serve another request."""
    behaviour = answer.behaviour
    if behaviour == "hang":
        await asyncio.Event().wait()
    if behaviour == "slow":
        await asyncio.sleep(SLOW_S)
    if behaviour == "garbage":
        writer.write(b"\x16\x03 this is no answer\r\n\r\n")
    elif behaviour == "endless":
        await _endless(answer, writer)
    elif behaviour == "cut":
        writer.write(_head(answer) + answer.body[: len(answer.body) // 2])
    elif behaviour == "reset":
        _reset(writer)
    elif behaviour != "drop":
        writer.write(_head(answer) + (b"" if method == "HEAD" else answer.body))
    await writer.drain()
    return behaviour in ("plain", "slow")


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset: a zero linger throws away what was not sent."""
    client: socket.socket = writer.get_extra_info("socket")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _head(answer: Answer, last: tuple[str, str] | None = None) -> bytes:
    """Status line and fields; `last` stands in for the Content-Length."""
    fields = [*answer.headers, last or ("Content-Length", str(len(answer.body)))]
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    reason = HTTPStatus(answer.status).phrase
    return f"HTTP/1.1 {answer.status} {reason}\r\n{lines}\r\n".encode("latin-1")


async def _endless(answer: Answer, writer: asyncio.StreamWriter) -> None:
    writer.write(_head(answer, ("Connection", "close")))
    for _ in range(ENDLESS_BYTES // len(answer.body)):
        writer.write(answer.body)
        await writer.drain()
