"""Servers that behave badly: answers that are no HTTP, never come, never end, or are not as said.

All end by themselves within `PATIENCE_S`, should the client bear with them for so long.
"""

import asyncio
import functools
import gzip
import itertools
import socket
import struct
import zlib
from collections.abc import Iterable

import brotli  # type: ignore[import-untyped]
import zstandard

from tests.web_answers import response
from tests.web_server import Handler

PATIENCE_S = 60.0
BOMB_BYTES = 64 << 20
"""What each bomb grows to. They are 100 bytes to 100 kB as they are sent."""
PAUSE_S = 0.05

GARBAGE = b"\x16\x03\x01 this is no answer\r\n\r\n"
HTTP09 = b"<html><body><p>An answer without a head, as in 1991.</p></body></html>"
BAD_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n<p>no number</p>\r\n"
CUT_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n<p>cut\r\n"
SHORT = response(200, headers={"Content-Length": "5000"}, length=False) + b"<html><p>cut here"
TWO_LENGTHS = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n<p>a</p>"
NO_STATUS = b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"
NO_VERSION = b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n"
LONG_FIELD = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * (1 << 20) + b"\r\n\r\n"
NEGATIVE = b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n<p>a</p>"


async def hang(writer: asyncio.StreamWriter) -> None:
    """Never answers."""
    await asyncio.sleep(PATIENCE_S)


async def endless(writer: asyncio.StreamWriter) -> None:
    """A body without an end, as quickly as it is read."""
    writer.write(response(200, b"<html>", length=False))
    while True:
        writer.write(b"<p>more" * 1000)
        await writer.drain()


async def slam(writer: asyncio.StreamWriter) -> None:
    """Closes the connection without a word."""
    writer.transport.abort()


async def reset(writer: asyncio.StreamWriter) -> None:
    """Resets the connection: a zero linger throws away what was not sent."""
    _reset(writer)


async def reset_within(writer: asyncio.StreamWriter) -> None:
    """Resets the connection within the body."""
    writer.write(SHORT)
    await asyncio.sleep(PAUSE_S)
    _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    client: socket.socket = writer.get_extra_info("socket")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def half_a_head(writer: asyncio.StreamWriter) -> None:
    """Says half of a head, and nothing more."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Ty")
    await asyncio.sleep(PATIENCE_S)


async def half_a_body(writer: asyncio.StreamWriter) -> None:
    """Says half of a body, and nothing more."""
    writer.write(SHORT)
    await asyncio.sleep(PATIENCE_S)


def dripping(pieces: Iterable[bytes]) -> Handler:
    """A slow loris: piece by piece, each in time, all of them never."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(PAUSE_S)

    return answer


def _times(piece: bytes) -> Iterable[bytes]:
    return itertools.repeat(piece, int(PATIENCE_S / PAUSE_S))


async def drip_head(writer: asyncio.StreamWriter) -> None:
    """Drips one field after another."""
    fields = (b"X-%d: y\r\n" % number for number in range(int(PATIENCE_S / PAUSE_S)))
    await dripping(itertools.chain([b"HTTP/1.1 200 OK\r\n"], fields))(writer)


async def drip_body(writer: asyncio.StreamWriter) -> None:
    """Drips one byte of a body after another."""
    head = response(200, b"<html>", {"Content-Length": "1000000"}, length=False)
    await dripping(itertools.chain([head], _times(b"x")))(writer)


async def flood_of_hints(writer: asyncio.StreamWriter) -> None:
    """One 1xx answer after another, and never the real one."""
    many = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 50
    await dripping(_times(many))(writer)


async def flood_of_fields(writer: asyncio.StreamWriter) -> None:
    """A head without an end, as quickly as it is read."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(200_000):
        writer.write(b"X-Header-%d: %b\r\n" % (number, b"y" * 100))
        await writer.drain()


@functools.cache
def bomb(coding: str) -> bytes:
    """A small body that grows to `BOMB_BYTES` of markup when `coding` is undone."""
    piece = b"<html><body><p>" + b"boom " * (1 << 18)
    times = BOMB_BYTES // len(piece)
    if coding == "br":
        packer = brotli.Compressor(quality=5)
        body = b"".join(packer.process(piece) for _ in range(times)) + packer.finish()
    elif coding == "zstd":
        stream = zstandard.ZstdCompressor(level=3).compressobj()
        body = b"".join(stream.compress(piece) for _ in range(times)) + stream.flush()
    else:
        wbits = {"gzip": 31, "deflate": 15}[coding]
        deflater = zlib.compressobj(9, zlib.DEFLATED, wbits)
        body = b"".join(deflater.compress(piece) for _ in range(times)) + deflater.flush()
    return response(200, body, {"Content-Encoding": coding})


@functools.cache
def bomb_in_a_bomb() -> bytes:
    """A gzip bomb, gzip-coded once more: a kilobyte or so."""
    _, _, body = bomb("gzip").partition(b"\r\n\r\n")
    twice = gzip.compress(body, 9, mtime=0)
    return response(200, twice, {"Content-Encoding": "gzip, gzip"})
