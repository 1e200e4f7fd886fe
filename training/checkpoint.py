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

VERSION = 2
"""Raise it when the same settings and tokens give another course of training."""

COMPLETE = "COMPLETE"

_LOCK = "training.lock"
_NAME = re.compile(r"step-(\d{6,})")
_log = logging.getLogger(__name__)


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A window and what the model made of it: who reads the weights back must find the same."""

    ids: list[int]
    """`context` + 1 token ids."""
    loss: float
    """Mean over the window, in nats."""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """What COMPLETE says."""

    step: int
    """Optimizer steps done."""
    applied: int
    """Those of them that moved the weights: Adam's count."""
    samples: int
    """Windows seen by them."""
    skipped: list[int]
    """Batches left out, by their numbers: with `step` all of the data order's state."""
    world: int
    """Ranks that wrote it; any number may read it."""
    zero_stage: int
    """ZeRO stage that wrote it; any may read it."""
    tokens: str
    """`tokens.Tokens.identity` of the training split."""
    manifest: str
    """Hash of the manifest of the tokens, where they have one."""
    settings: TrainingConfig
    """The resolved settings."""
    probe: Probe
    """How to know that what was read is what was written."""
    files: dict[str, str]
    """sha256 of every file, by its name."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    folder: Path
    marker: Marker


def fingerprint(config: TrainingConfig, tokens_fingerprint: str) -> str:
    """What is trained on what, as 16 hexadecimal digits: same digits, same course of losses.

    What a run was forked from counts by its content. BadInput where that is not there."""
    trained = config.trained()
    if config.fork:
        trained["fork"] = files.sha256(forked(config.fork).folder / COMPLETE)
    content = {"version": VERSION, "tokens": tokens_fingerprint, "settings": trained}
    encoded = msgspec.json.encode(content, order="deterministic")
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def run_folder(root: Path | str, config: TrainingConfig, tokens_fingerprint: str) -> Path:
    """Where the run of these settings on these tokens lives."""
    return Path(root) / fingerprint(config, tokens_fingerprint)


def forked(fork: str) -> Checkpoint:
    """The checkpoint that `training.fork` names; BadInput where none that is whole lies there."""
    path = Path(fork)
    try:
        found = _open(path) if _NAME.fullmatch(path.name) else newest(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"training.fork: {path} is no whole checkpoint: {error}") from error
    if found is None:
        raise BadInput(f"training.fork: {path} holds no whole checkpoint (step-NNNNNN)")
    return found


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


def seal(unfinished: Path, marker: Marker) -> Checkpoint:
    """Make a checkpoint of an unfinished folder in which the files that `marker` names are on the
    disk; no other file may be there."""
    content = msgspec.json.format(msgspec.json.encode(marker)) + b"\n"
    files.write(unfinished / COMPLETE, content + _digest(content))
    final = unfinished.with_name(f"step-{marker.step:06d}")
    if final.exists():  # a damaged one, which whoever resumed only passed over
        _set_aside(final)
    unfinished.replace(final)
    # Else a power cut could undo the new name and keep the deletion of those before it.
    files.to_disk(final.parent)
    return Checkpoint(final, marker)


def steps(folder: Path) -> list[int]:
    """The steps of a run's checkpoints that say they are whole; their files are not looked at."""
    return [_step(path) for path in _found(folder) if (path / COMPLETE).exists()]


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


def refuse_foreign(found: Checkpoint, config: TrainingConfig, *, tokens: str) -> None:
    """BadInput where `config` or `tokens` cannot go on from `found`."""
    marker, mine, its = found.marker, config.trained(), found.marker.settings.trained()
    # A fork's source may lie elsewhere now: it counts by content, in the name of the run's folder.
    for name in sorted(mine.keys() - {"fork"}):
        if mine[name] != its[name]:
            raise BadInput(
                f"training.{name}: is {mine[name]}, but {found.folder} was trained with "
                f"{its[name]}; a new run may begin there: training.fork={found.folder}"
            )
    if marker.tokens != tokens:
        raise BadInput(f"{found.folder}: was trained on other tokens than these")


def refuse_fork(found: Checkpoint, config: TrainingConfig) -> None:
    """BadInput where no run with `config` can begin at `found`."""
    mine, its = config.sizes(), found.marker.settings.sizes()
    if mine != its:
        raise BadInput(f"training.model: is {mine}, but training.fork {found.folder} holds {its}")
    if found.marker.step >= config.steps:
        raise BadInput(
            f"training.steps: is {config.steps}, but training.fork {found.folder} has done "
            f"{found.marker.step} already"
        )


def prune(folder: Path, keep: int, step: int, every: int = 0) -> None:
    """Delete all but the `keep` newest checkpoints up to the one just sealed, that of `step`, and
    those whose step `every` divides; and what crashes left. Never while saving. Later ones are not
    of this course, and do not count."""
    for path in [path for path in _found(folder) if _step(path) <= step][:-keep]:
        if not (every and _step(path) % every == 0):
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
    written = (path / COMPLETE).read_bytes()
    content, digest = written[: -len(_digest(b""))], written[-len(_digest(b"")) :]
    if digest != _digest(content):
        raise ValueError(f"{COMPLETE} is not the file that was written")
    marker = msgspec.json.decode(content, type=Marker)
    found = _hashes(path)
    for name in sorted(marker.files.keys() | found.keys()):
        if marker.files.get(name) != found.get(name):
            raise ValueError(f"{name} is not the file that was written")
    return Checkpoint(path, marker)


def _digest(content: bytes) -> bytes:
    """The last line of COMPLETE: its own sha256."""
    return f"sha256 {hashlib.sha256(content).hexdigest()}\n".encode()


def _hashes(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMPLETE)
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in found}
