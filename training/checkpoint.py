"""Which checkpoints of a run are whole: found, sealed, refused by name, pruned.

A run lives in `<root>/<fingerprint>/`, a checkpoint in `step-000020/` there. Invariant: a folder
named `step-*` is whole when its COMPLETE file says so: it is written last, in a folder that gets
its name only then, and holds the hash of every other file. One gang at a time writes there:
the one whose rank 0 holds the folder.
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from training import files
from training.config import BadInput, TrainingConfig

VERSION = 1
"""Raise it when the same settings and tokens give another course of training."""

COMPLETE = "COMPLETE"
WEIGHTS = "weights.pt"
"""The weights alone, in fp32, by the model's names: all that `evaluate` and `generate` read."""

_LOCK = "training.lock"
_NAME = re.compile(r"step-(\d{6,})")
_log = logging.getLogger(__name__)


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """What COMPLETE says."""

    step: int
    """Optimizer steps done; the only state of the data order."""
    world: int
    """Ranks that wrote it."""
    tokens: str
    """`tokens.Tokens.identity` of the training split."""
    settings: TrainingConfig
    """The resolved settings."""
    files: dict[str, str]
    """sha256 of every file, by its path in the checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    folder: Path
    marker: Marker


def fingerprint(config: TrainingConfig, tokens_fingerprint: str) -> str:
    """What is trained on what, as 16 hexadecimal digits: same digits, same course of losses."""
    content = {"version": VERSION, "tokens": tokens_fingerprint, "settings": config.trained()}
    encoded = msgspec.json.encode(content, order="deterministic")
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def run_folder(root: Path | str, config: TrainingConfig, tokens_fingerprint: str) -> Path:
    """Where the run of these settings on these tokens lives."""
    return Path(root) / fingerprint(config, tokens_fingerprint)


@contextmanager
def hold(
    folder: Path, *, wait_s: int = 60, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Be the one gang that writes in a run's folder while the block runs.

    The lock is the operating system's and ends with its process: a gang that is started again gets
    it once the old rank 0 is dead. BadInput where another still has it after `wait_s` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("ab") as file:
        for left in range(wait_s, -1, -1):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not left:
                    raise BadInput(
                        f"{folder}: another training has been writing there for {wait_s} s; end "
                        "it, then start this one again"
                    ) from error
            sleep(1.0)
        yield


def unfinished_folder(folder: Path, step: int) -> Path:
    """Where the ranks write the checkpoint of `step` until it is sealed."""
    return folder / f"unfinished-step-{step:06d}"


def begin(folder: Path, step: int) -> Path:
    """Make that folder, empty: what a crash left there goes."""
    unfinished = unfinished_folder(folder, step)
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    return unfinished


def seal(
    unfinished: Path, *, step: int, world: int, tokens: str, settings: TrainingConfig
) -> Checkpoint:
    """Make a checkpoint of an unfinished folder in which every rank has written its files."""
    marker = Marker(
        step=step, world=world, tokens=tokens, settings=settings, files=_hashes(unfinished)
    )
    (unfinished / COMPLETE).write_bytes(msgspec.json.format(msgspec.json.encode(marker)) + b"\n")
    for path in (*unfinished.rglob("*"), unfinished):
        files.to_disk(path)
    final = unfinished.with_name(f"step-{step:06d}")
    if final.exists():  # a damaged one, which whoever resumed only passed over
        _set_aside(final)
    unfinished.replace(final)
    # Else a power cut could undo the new name and keep the deletion of those before it.
    files.to_disk(final.parent)
    return Checkpoint(final, marker)


def newest(folder: Path | str) -> Checkpoint | None:
    """The newest whole checkpoint of a run; damaged ones are named in the log and passed over."""
    for path in reversed(_found(Path(folder))):
        try:
            return _open(path)
        except (OSError, ValueError) as error:
            _log.warning("checkpoint %s is damaged and passed over: %s", path, error)
    return None


def resume(folder: Path) -> Checkpoint | None:
    """`newest`, for the one who trains on from it: damaged ones after it are renamed
    `damaged-step-...`, so that the steps to come meet none of them."""
    found = newest(folder)
    for path in _found(folder):
        if found is None or _step(path) > found.marker.step:
            _set_aside(path)
    return found


def refuse_foreign(found: Checkpoint, config: TrainingConfig, *, world: int, tokens: str) -> None:
    """BadInput where `config`, `world` or `tokens` cannot go on from `found`."""
    marker, mine, its = found.marker, config.trained(), found.marker.settings.trained()
    for name in mine:
        if mine[name] != its[name]:
            raise BadInput(
                f"training.{name}: is {mine[name]}, but {found.folder} was trained with {its[name]}"
            )
    if marker.tokens != tokens:
        raise BadInput(f"{found.folder}: was trained on other tokens than these")
    if marker.world != world:
        raise BadInput(
            f"training.ranks: is {world}, but {found.folder} was written by {marker.world} ranks"
        )
    if marker.settings.zero_stage != config.zero_stage:
        raise BadInput(
            f"training.zero_stage: is {config.zero_stage}, but {found.folder} was written at "
            f"stage {marker.settings.zero_stage}"
        )


def prune(folder: Path, keep: int, step: int) -> None:
    """Delete all but the `keep` newest checkpoints up to the one just sealed, that of `step`, and
    what crashes left; never while saving. Later ones are not of this course, and do not count."""
    for path in [path for path in _found(folder) if _step(path) <= step][:-keep]:
        # Renamed first: half a deletion must not look like a damaged checkpoint.
        path.rename(path.with_name(f"unfinished-{path.name}"))
    for path in folder.glob("unfinished-step-*"):
        shutil.rmtree(path)


def give_up(folder: Path) -> None:
    """Delete what is unfinished after a failure, and have its room at once: emptied first, since
    those who failed to write it still have it open. Several ranks may do so."""
    for unfinished in folder.glob("unfinished-step-*"):
        for path in unfinished.rglob("*"):
            if path.is_file():
                os.truncate(path, 0)
        shutil.rmtree(unfinished, ignore_errors=True)


def _found(folder: Path) -> list[Path]:
    """Folders that claim to be checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _set_aside(path: Path) -> None:
    """Give a damaged checkpoint a name that nothing counts, for whoever wants to look at it."""
    aside = path.with_name(f"damaged-{path.name}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"damaged-{path.name}-{number}")
    path.rename(aside)
    _log.warning("damaged checkpoint %s is now %s; delete it when you like", path, aside.name)


def _open(path: Path) -> Checkpoint:
    """ValueError or OSError says what is damaged."""
    marker = msgspec.json.decode((path / COMPLETE).read_bytes(), type=Marker)
    found = _hashes(path)
    for name in sorted(marker.files.keys() | found.keys()):
        if marker.files.get(name) != found.get(name):
            raise ValueError(f"{name} is not the file that was written")
    return Checkpoint(path, marker)


def _hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != COMPLETE)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
