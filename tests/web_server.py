"""The sockets of the loopback web: requests in, answers out as they are told, each in the log.

Rule: what is answered depends on the request and on the web that is asked, never on who asks. A
server is far quicker than any client, so that it can measure them: bytes that lie ready, no streams
where none are needed.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tests.web_log import Hit, Log

MAX_HEAD_BYTES = 256 * 1024
PIECE_BYTES = 64 * 1024
"""Sent at once: the end of an answer is known to within so much of it."""

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Ready:
    """An answer that lies ready, sent so many seconds after the request. With `keep`, the
    connection stays open for another one."""

    data: bytes
    after_s: float = 0.0
    keep: bool = True


Answer = bytes | Ready | Handler
"""Bytes are sent as they are, and end the connection; a coroutine says all itself."""


class Web(Protocol):
    """What can be asked."""

    log: Log

    def find(self, hit: Hit) -> Answer:
        """What a request is answered with."""


async def listen(
    web: Web, host: str, port: int, *, tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """A server on an address of this machine; port 0 takes a free one."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: Connection(web, tls is not None), host, port, ssl=tls, backlog=4096
    )


class Connection(asyncio.streams.FlowControlMixin):
    """One connection: a request, its answer, and perhaps another."""

    transport: Any

    def __init__(self, web: Web, tls: bool) -> None:
        super().__init__()
        self._web, self._tls = web, tls
        self._came = b""
        self._hit: Hit | None = None
        self._work: asyncio.Task[None] | None = None
        self._closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self._closed.done():
            self._closed.set_result(None)
        if self._work:
            self._work.cancel()
        if self._hit and self._hit.ended is None:
            self._hit.cut = True
            self._over(time.monotonic())

    def data_received(self, data: bytes) -> None:
        self._came += data
        if self._hit is None:
            self._next()

    def _next(self) -> None:
        if self._came[:1] == b"\x16":  # TLS, of which this port knows nothing
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()
            return
        head, mark, rest = self._came.partition(b"\r\n\r\n")
        if not mark:
            if len(head) > MAX_HEAD_BYTES:
                self.transport.close()
            return
        self._came = rest
        self._hit = hit = parsed(head, self._tls)
        self._web.log.begun(hit)
        answer = self._web.find(hit)
        if isinstance(answer, bytes):
            answer = Ready(answer, keep=False)
        if isinstance(answer, Ready) and b"\r\nconnection: close" in head.lower():
            answer = replace(answer, keep=False)
        if not isinstance(answer, Ready):
            self._begin(answer)
        elif answer.after_s:
            asyncio.get_running_loop().call_later(answer.after_s, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: Ready) -> None:
        if self.transport.is_closing():
            return
        if len(answer.data) > PIECE_BYTES:
            self._begin(in_pieces(answer.data), keep=answer.keep)
            return
        now = time.monotonic()
        self.transport.write(answer.data)
        self._over(now)
        self._after(answer.keep)

    def _begin(self, handler: Handler, *, keep: bool = False) -> None:
        self._work = asyncio.get_running_loop().create_task(self._handle(handler, keep))

    async def _handle(self, handler: Handler, keep: bool) -> None:
        writer = _Writer(self.transport, self, None, asyncio.get_running_loop())
        try:
            await handler(writer)
        except ConnectionError:
            return  # the client went away, as some tests make it
        finally:
            if not keep:
                writer.close()
        if self._hit and self._hit.ended is None:
            self._hit.cut = writer.wrote is None
            self._over(writer.wrote or time.monotonic())
            self._after(keep)

    def _over(self, now: float) -> None:
        assert self._hit
        self._hit.ended = now
        self._web.log.over(self._hit)

    def _after(self, keep: bool) -> None:
        self._hit = self._work = None
        if not keep:
            self.transport.close()
        elif self._came:
            self._next()

    def _get_close_waiter(self, stream: asyncio.StreamWriter) -> asyncio.Future[None]:
        return self._closed


class _Writer(asyncio.StreamWriter):
    """A stream that knows when its last bytes began to go out."""

    wrote: float | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.wrote = time.monotonic()
        super().write(data)


def in_pieces(data: bytes) -> Handler:
    """Sends bytes no quicker than they are read."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            writer.write(data[start : start + PIECE_BYTES])
            await writer.drain()

    return answer


def parsed(head: bytes, tls: bool) -> Hit:
    """A request, by its head. The host is without its port, the path without its origin."""
    now = time.monotonic()
    path = head.partition(b"\r\n")[0].split(b" ")[1].decode("latin-1")
    if path.startswith("http://"):  # as a proxy is asked
        path = "/" + path[7:].partition("/")[2]
    start = head.lower().find(b"\r\nhost:")
    host = head[start + 7 :].partition(b"\r\n")[0].strip() if start >= 0 else b""
    return Hit(host.decode("latin-1").lower().partition(":")[0], path, now, head, tls)
