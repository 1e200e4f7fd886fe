"""Why a run cannot go on, however often its ranks are started anew.

The first rank to see it writes it into the run's folder, whoever started the ranks reads it there:
a process that ended says no more than a number.
"""

from pathlib import Path

import msgspec

from training import files

_FILE = "refused.json"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank found."""

    says: str
    input: bool
    """Whether settings, tokens or checkpoint are at fault, and not the training itself."""


def write(folder: Path, refusal: Refusal) -> None:
    """Put it in place, whole; several ranks may do so at once."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / _FILE, msgspec.json.encode(refusal))


def read(folder: Path) -> Refusal | None:
    """What is written there, if anything is."""
    path = folder / _FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Refusal) if path.exists() else None
    except ValueError:  # also bytes that are no UTF-8
        return Refusal(says=f"{path} is damaged, so nobody knows why; remove it", input=False)


def clear(folder: Path) -> None:
    """Forget it: settings or machines may be others now."""
    (folder / _FILE).unlink(missing_ok=True)
