"""A small HTTP proxy on loopback: it takes whole addresses and CONNECT, and can refuse both."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.web import in_thread, port_of


@dataclass
class Proxy:
    """Leads all hosts to one place of this machine; `status` refuses with that."""

    to: int
    status: int | None = None
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """First lines of requests, as they came."""
    heads: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        """As `crawl.proxy` wants it."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            self.asked.append(head.partition(b"\r\n")[0].decode())
            if self.status:
                answer = f"HTTP/1.1 {self.status} No\r\nContent-Length: 0\r\n\r\n"
                writer.write(answer.encode())
                await writer.drain()
            else:
                await self._lead(head, reader, writer)
        writer.close()

    async def _lead(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.to)
        if head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            back.write(head)
        ways = [
            asyncio.ensure_future(_copy(reader, back)),
            asyncio.ensure_future(_copy(there, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        for way in ways:
            way.cancel()
        back.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await source.read(1 << 16):
            sink.write(piece)
            await sink.drain()


@contextmanager
def serve(to: int, status: int | None = None) -> Iterator[Proxy]:
    """A proxy in a thread of its own, for as long as the context."""
    proxy = Proxy(to, status)
    with in_thread(lambda: asyncio.start_server(proxy.serve, "127.0.0.1", 0)) as server:
        proxy.port = port_of(server)
        yield proxy
