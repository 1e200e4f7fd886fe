"""Gzip members, as records of web archives are written in: compressed, or stored where nothing is
to be gained.

A body that came compressed takes four times as long to compress once more as all else about it, and
loses no byte by it. It is put into stored blocks (RFC 1951, section 3.2.4) behind the compressed
headers.
"""

import struct

from isal import isal_zlib

LEVEL = 2
"""Of isal, 0 to 3. Above it, it takes twice the time for 3 % fewer bytes."""
GZIP, RAW = 31, -15
"""zlib's numbers for the largest window, with gzip's header and trailer and with none."""
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""Deflate, no name, no time, no particular machine (RFC 1952, section 2.3)."""
BLOCK = 65535
"""The most that a stored block holds."""


def compressed(*pieces: bytes) -> bytes:
    """A member that stands for these bytes, one piece behind the other."""
    return bytes(isal_zlib.compress(b"".join(pieces), LEVEL, GZIP))


def stored(head: bytes, *pieces: bytes) -> bytes:
    """The same, of which only `head` is compressed."""
    packer = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, RAW)
    member = [HEADER, packer.compress(head), packer.flush(isal_zlib.Z_SYNC_FLUSH)]
    rest = b"".join(pieces)
    # one block at least: the last one ends the stream
    for at in range(0, max(1, len(rest)), BLOCK):
        block = rest[at : at + BLOCK]
        is_last = at + BLOCK >= len(rest)
        member += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block]
    check = isal_zlib.crc32(rest, isal_zlib.crc32(head))
    size = (len(head) + len(rest)) % (1 << 32)
    return b"".join([*member, struct.pack("<II", check, size)])
