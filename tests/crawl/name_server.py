"""A name server of the tests' own on loopback, which answers as it is told, or not at all."""

import ipaddress
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

A, AAAA = 1, 28
OK, SERVFAIL, NXDOMAIN = 0, 2, 3
TRUNCATED = 0x200
"""Ask again by TCP, which nobody here speaks."""
Reply = Sequence[str] | int | None
"""Addresses; or a code of failure or a flag; or nothing at all."""


@dataclass
class NameServer:
    """What is asked of it, by name and type, and what it says."""

    port: int
    says: Callable[[str, int], Reply]
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def place(self) -> str:
        """As `crawl.name_servers` wants it."""
        return f"127.0.0.1:{self.port}"

    def answer(self, query: bytes) -> bytes | None:
        """The datagram that answers another, to be kept for no time at all."""
        name, end = _name(query, 12)
        (kind,) = struct.unpack("!H", query[end : end + 2])
        self.asked[name, kind] += 1
        said = self.says(name, kind)
        if said is None:
            return None
        code, addresses = (said, ()) if isinstance(said, int) else (OK, said)
        packed = [ipaddress.ip_address(address).packed for address in addresses]
        packed = [address for address in packed if len(address) == (4 if kind == A else 16)]
        head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(packed), 0, 0)
        rows = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(address)) + address
            for address in packed
        )
        return head + query[12 : end + 4] + rows


def _name(query: bytes, at: int) -> tuple[str, int]:
    labels = []
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode().lower())
        at += 1 + size
    return ".".join(labels), at + 1


@contextmanager
def serve(says: Callable[[str, int], Reply]) -> Iterator[NameServer]:
    """A name server in a thread of its own, for as long as the context."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        server = NameServer(udp.getsockname()[1], says)

        def listen() -> None:
            while True:
                query, client = udp.recvfrom(4096)
                if len(query) < 12:  # the end
                    return
                if (reply := server.answer(query)) is not None:
                    udp.sendto(reply, client)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", udp.getsockname())
            thread.join()
