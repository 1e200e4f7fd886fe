"""Which checkpoints of a run are whole: found, sealed, refused by name, pruned.

A run lives in `<root>/<fingerprint>/`, a checkpoint in `step-000020/` there. Invariant: a folder
named `step-*` is whole when its COMPLETE file says so: it is written last, in a folder that gets
its name only then, and holds the hash of every other file. One gang at a time writes there:
the one whose rank 0 holds the folder.
"""

import contextlib
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
from typing import Any, TypeVar

import msgspec

from training import files
from training.config import BadInput, ModelConfig, TrainingConfig

VERSION = 2
"""Raise it when the same settings and tokens give another course of training."""

COMPLETE = "COMPLETE"

_LOCK = "training.lock"
_NO_FORK = ("model", "batch_tokens")
"""What a fork may not change either."""
_NAME = re.compile(r"step-(\d{6,})")
_LEFT = re.compile(r"\..+\.\d+-[0-9a-f]+\.tmp")
"""What `files.write` calls a file until it is whole."""
_LEFT_S = 3600.0
"""Older ones of those have no writer any more: it takes seconds."""
_T = TypeVar("_T")
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
    device: str
    """What each rank computed on: "cpu", or the GPU's name."""
    manner: dict[str, Any] = {}
    """What else moves the last bits of a loss, as rank 0 had it."""
    tokens: str
    """`tokens.Tokens.identity` of the training split."""
    manifest: str
    """Hash of the manifest of the tokens, where they have one."""
    settings: dict[str, Any]
    """The resolved settings, for the record: another version may have other ones."""
    trained: dict[str, Any]
    """Those of them that are part of what is trained: `TrainingConfig.trained`."""
    sizes: ModelConfig
    """The model's."""
    probe: Probe
    """How to know that what was read is what was written."""
    files: dict[str, str]
    """sha256 of every file, by its name."""


class _Damaged(ValueError):
    """What of a folder that claims to be a checkpoint is not as it was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    folder: Path
    marker: Marker


def fingerprint(config: TrainingConfig, tokens_fingerprint: str) -> str:
    """What is trained on what, as 16 hexadecimal digits: same digits, same course of losses.

    What a run was forked from counts by the name of its run and its step, which determine what is
    in it; it need not be there any more. BadInput where `training.fork` cannot be a checkpoint."""
    trained = config.trained()
    if config.fork:
        source = _source(config.fork)
        trained["fork"] = f"{source.parent.name}/{source.name}"
    content = {"version": VERSION, "tokens": tokens_fingerprint, "settings": trained}
    encoded = msgspec.json.encode(content, order="deterministic")
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def run_folder(root: Path | str, config: TrainingConfig, tokens_fingerprint: str) -> Path:
    """Where the run of these settings on these tokens lives."""
    return Path(root) / fingerprint(config, tokens_fingerprint)


def forked(fork: str) -> Checkpoint:
    """The checkpoint that `training.fork` names; BadInput where none that is whole lies there,
    OSError where that cannot be seen."""
    path = _source(fork)
    try:
        return _open(path)
    except _Damaged as error:
        raise BadInput(f"training.fork: {path} is no whole checkpoint: {error}") from error


@contextmanager
def hold(
    folder: Path, *, wait_s: int = 180, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Be the one gang that writes in a run's folder while the block runs.

    The lock is the operating system's and ends with its process: a gang that is started again gets
    it once the old rank 0 is dead; for 90 s an NFS server may not know that a machine is lost.
    BadInput where another still has it after `wait_s` seconds. Files that killed ones had begun go.
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
        _clear_left(folder)
        yield


def unfinished_folder(folder: Path, step: int) -> Path:
    """Where the ranks write the checkpoint of `step` until it is sealed."""
    return folder / f"unfinished-step-{step:06d}"


def begin(folder: Path, step: int) -> Path:
    """Make that folder, empty: what a crash left there goes."""
    unfinished = unfinished_folder(folder, step)
    if unfinished.exists():
        _delete(unfinished)
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
    """The newest whole checkpoint of a run; damaged ones are named in the log and passed over.
    OSError where one cannot be read though it may be whole."""
    return _look(Path(folder))[0]


def resume(folder: Path) -> Checkpoint | None:
    """`newest`, for the one who trains on from it: damaged ones after it are renamed
    `damaged-step-...`, so that the steps to come meet none of them. BadInput, and nothing is
    renamed, where all are damaged: whoever begins anew there should know."""
    found, damaged = _look(folder)
    if found is None and damaged:
        path, fault = damaged[0]
        raise BadInput(
            f"{folder}: no checkpoint of {len(damaged)} is whole; of the newest, {path.name}, "
            f"{fault}; move all step-* away to begin anew"
        )
    for path, _ in damaged:
        _set_aside(path)
    return found


def refuse_foreign(found: Checkpoint, config: TrainingConfig, *, tokens: str) -> None:
    """BadInput where `config` or `tokens` cannot go on from `found`."""
    mine, its = config.trained(), found.marker.trained
    # A fork's source may lie elsewhere now: it counts in the name of the run's folder.
    for name in sorted((mine.keys() | its.keys()) - {"fork"}):
        if _value(mine, name) != _value(its, name):
            fork = f"a new run may begin there: training.fork={found.folder}"
            raise BadInput(
                f"training.{name}: is {_value(mine, name)}, but {found.folder} was trained with "
                f"{_value(its, name)}; {'move it away' if name in _NO_FORK else fork}"
            )
    if found.marker.tokens != tokens:
        raise BadInput(f"{found.folder}: was trained on other tokens than these")


def refuse_fork(found: Checkpoint, config: TrainingConfig) -> None:
    """BadInput where no run with `config` can begin at `found`."""
    marker, source = found.marker, f"training.fork {found.folder}"
    if marker.sizes != config.sizes():
        raise BadInput(f"training.model: is {config.sizes()}, but {source} holds {marker.sizes}")
    last = config.last_step()
    if marker.step >= last:
        name = "steps" if last == config.steps else "stop_after"
        raise BadInput(f"training.{name}: is {last}, but {source} has done {marker.step} already")
    its = _value(marker.trained, "batch_tokens")
    if its != config.batch_tokens:
        raise BadInput(
            f"training.batch_tokens: is {config.batch_tokens}, but must be {its} as in {source}: "
            "its place in the order of the data is counted in batches"
        )


def same_order(marker: Marker, config: TrainingConfig, *, tokens: str) -> bool:
    """Whether the batches of `config` on `tokens` are those of the marker, number by number."""
    return marker.tokens == tokens and _value(marker.trained, "seed") == config.seed


def prune(folder: Path, keep: int, step: int, every: int = 0) -> None:
    """Delete all but the `keep` newest checkpoints up to the one just sealed, that of `step`, and
    those whose step `every` divides; and what crashes left. Never while saving. Later ones are not
    of this course, and do not count."""
    for path in [path for path in _found(folder) if _step(path) <= step][:-keep]:
        if not (every and _step(path) % every == 0):
            _delete(path)
    for path in folder.glob("unfinished-step-*"):
        shutil.rmtree(path, ignore_errors=True)


def give_up(folder: Path) -> None:
    """Delete what is unfinished after a failure, and have its room at once: emptied first, since
    those who failed to write it still have it open. Several ranks may do so."""
    for unfinished in folder.glob("unfinished-step-*"):
        for path in unfinished.rglob("*"):
            if path.is_file():
                os.truncate(path, 0)
        shutil.rmtree(unfinished, ignore_errors=True)


def _source(fork: str) -> Path:
    """The folder that `training.fork` names; BadInput where it has no checkpoint's name."""
    path = Path(os.path.normpath(Path(fork).absolute()))
    if not _NAME.fullmatch(path.name):
        its = [each for each in _found(path) if each.is_dir()]
        hint = f"; its newest is training.fork={its[-1]}" if its else ""
        raise BadInput(f"training.fork: {path} is no checkpoint (RUN/step-NNNNNN){hint}")
    return path


def _value(trained: dict[str, Any], name: str) -> Any:
    """A setting that was not yet there, or is no longer, had its default's effect."""
    return trained.get(name, TrainingConfig().trained().get(name))


def _clear_left(folder: Path) -> None:
    for path in folder.iterdir():
        if _LEFT.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):  # its writer is there, and done
                if time.time() - path.stat().st_mtime > _LEFT_S:
                    path.unlink()


def _found(folder: Path) -> list[Path]:
    """Folders that claim to be checkpoints, oldest first."""
    try:
        # Not asked whether it is a folder: an answer that does not come would mean no.
        return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_step)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _free(path: Path) -> Path:
    """The path, or with a number behind it where that is taken."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _set_aside(path: Path) -> None:
    """Give a damaged checkpoint a name that nothing counts, for whoever wants to look at it."""
    aside = _free(path.with_name(f"damaged-{path.name}"))
    path.rename(aside)
    _log.warning("damaged checkpoint %s is now %s; delete it when you like", path, aside.name)


def _delete(path: Path) -> None:
    """Delete a folder, as far as that can be: on NFS a file that someone reads stays until it is
    closed, for a later `prune`. The name is free in any case."""
    # Renamed first: half a deletion must not look like a damaged checkpoint.
    doomed = _free(path.with_name(f"unfinished-step-{path.name.rpartition('step-')[2]}-deleted"))
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _look(folder: Path) -> tuple[Checkpoint | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint, and the damaged ones after it with what is wrong, newest
    first."""
    damaged: list[tuple[Path, str]] = []
    for path in reversed(_found(folder)):
        try:
            return _open(path), damaged
        except _Damaged as error:
            _log.warning("checkpoint %s is damaged and passed over: %s", path, error)
            damaged.append((path, str(error)))
    return None, damaged


def _open(path: Path) -> Checkpoint:
    """_Damaged says what is not as it was written; OSError names a file that cannot be read, which
    tells nothing about it."""
    written = _read(path / COMPLETE, Path.read_bytes)
    content, digest = written[: -len(_digest(b""))], written[-len(_digest(b"")) :]
    if digest != _digest(content):
        raise _Damaged(f"{COMPLETE} is not the file that was written")
    try:
        marker = msgspec.json.decode(content, type=Marker)
    except msgspec.DecodeError as error:
        raise _Damaged(f"{COMPLETE} is not what this version writes: {error}") from error
    for name in sorted(_names(path) - marker.files.keys()):
        raise _Damaged(f"{name} is not of this checkpoint")
    for name, known in sorted(marker.files.items()):
        if _read(path / name, files.sha256) != known:
            raise _Damaged(f"{name} is not the file that was written")
    return Checkpoint(path, marker)


def _read(path: Path, how: Callable[[Path], _T]) -> _T:
    try:
        return how(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _Damaged(f"{path.name} is missing") from error
    except OSError as error:  # reading, unlike opening, names no file
        raise OSError(error.errno, error.strerror, str(path)) from error


def _names(folder: Path) -> set[str]:
    """All files in a checkpoint's folder but its COMPLETE."""
    return _read(folder, _walk) - {COMPLETE}


def _walk(folder: Path) -> set[str]:
    def fail(error: OSError) -> None:
        raise error

    found = set()
    for place, _, names in os.walk(folder, onerror=fail):
        found |= {(Path(place) / name).relative_to(folder).as_posix() for name in names}
    return found


def _digest(content: bytes) -> bytes:
    """The last line of COMPLETE: its own sha256."""
    return f"sha256 {hashlib.sha256(content).hexdigest()}\n".encode()
