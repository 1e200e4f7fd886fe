"""What a reader tells about the file it reads, while it does: what it left out, where it stands.

Whoever keeps it beside the rows can go on from there after a kill: a reader begins at `place`.
"""

from collections import Counter
from typing import Protocol

MAX_FAULTS = 100
"""Faults that are written out, of one reader; all are counted."""


class Account(Protocol):
    """Handed to a reader, which changes it."""

    left_out: Counter[str]
    """How many lines yielded nothing, by reason."""
    faults: list[str]
    """The first lines that could not be read: file, place, reason."""
    place: int
    """Where the rows after the last ones begin: bytes or rows, as the form of the file has it."""
    bytes_read: int
    """Of the file as it lies there, compression and all."""


def fault(account: Account, where: str, reason: str) -> None:
    """Counts a line that could not be read, and writes out the first of them."""
    account.left_out[reason] += 1
    if len(account.faults) < MAX_FAULTS:
        account.faults.append(f"{where}: {reason}")
