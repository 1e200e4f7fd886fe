"""What it costs to put a page into a gzip member of a WARC file, by who deflates it and how.

Usage: python benchmarks/crawl_coding.py [ROUNDS]. Real pages of 190 kB in the mean, as they are and
as gzip sent them; libraries that are not installed (isal, zlib-ng) are left out, with a line that
says so. `stored`: the head of a record is deflated, a body that is coded already is not, both in
one gzip member (RFC 1951, 3.2.4). Medians over the rounds, per page, in one thread.
"""

import gzip
import statistics
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import crawl_web

HEAD = b"WARC/1.1\r\nWARC-Type: response\r\n" + b"X-Field: some 1,000 bytes of fields\r\n" * 26
STORED_BYTES = 65535
GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

Packer = Callable[[bytes], bytes]


def stored(body: bytes) -> bytes:
    """A gzip member of a deflated head and a stored body."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    parts = [GZIP, deflater.compress(HEAD), deflater.flush(zlib.Z_FULL_FLUSH)]
    for start in range(0, len(body), STORED_BYTES):
        piece = body[start : start + STORED_BYTES]
        last = start + STORED_BYTES >= len(body)
        parts += [struct.pack("<BHH", last, len(piece), len(piece) ^ 0xFFFF), piece]
    crc = zlib.crc32(body, zlib.crc32(HEAD))
    parts.append(struct.pack("<II", crc, (len(HEAD) + len(body)) & 0xFFFFFFFF))
    return b"".join(parts)


def deflated(library: Any, level: int) -> Packer:
    """A gzip member by a library that has zlib's functions."""

    def pack(body: bytes) -> bytes:
        deflater = library.compressobj(level, library.DEFLATED, 31)
        return bytes(deflater.compress(HEAD) + deflater.compress(body) + deflater.flush())

    return pack


def packers() -> Iterator[tuple[str, Packer]]:
    """All that there is to compare."""
    yield "stored", stored
    for level in (1, 6, 9):
        yield f"zlib {level}", deflated(zlib, level)
    for name, module, levels in (("isal", "isal.isal_zlib", (0, 1, 2)),
                                 ("zlib-ng", "zlib_ng.zlib_ng", (1, 6))):  # fmt: skip
        try:
            library = __import__(module, fromlist=["compressobj"])
        except ImportError:
            print(f"{name}: not installed")
            continue
        for level in levels:
            yield f"{name} {level}", deflated(library, level)


def main(rounds: int) -> None:
    """The table: ms and kB a page, for bodies as they are and as they were sent."""
    plain = crawl_web.bodies()
    bodies = {"as they are": plain, "as sent": [gzip.compress(body, 6, mtime=0) for body in plain]}
    found: dict[tuple[str, str], list[float]] = {}
    sizes: dict[tuple[str, str], int] = {}
    names = list(packers())
    for _ in range(rounds):
        for kind, all_of_them in bodies.items():
            for name, pack in names:
                began = time.process_time()
                size = sum(len(pack(body)) for body in all_of_them)
                used = (time.process_time() - began) * 1000 / len(all_of_them)
                found.setdefault((kind, name), []).append(used)
                sizes[kind, name] = size // len(all_of_them)
    for body in bodies["as sent"][:20]:
        if gzip.decompress(stored(body)) != HEAD + body:
            raise SystemExit("stored: is no gzip member of what was put in")
    for (kind, name), times in found.items():
        middle, size = statistics.median(times), sizes[kind, name] / 1000
        print(f"{kind:14}{name:12}{middle:8.3f} ms{size:10.1f} kB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
