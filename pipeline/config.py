"""The one tree of settings: a TOML recipe and `key=value` words.

Each package owns its branch, beside its code; nothing else reads the environment or flags. A field
says with `Meta(extra={"changes": [...]})` which datasets' content it changes; all others are
recorded and never hashed.
"""

import errno
import math
import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta, Struct, structs

from crawl.config import CrawlConfig, without_password
from dedup.config import CorpusConfig, DedupConfig
from pipeline.failures import BadInput
from training.config import TrainingConfig

NOT_TOML = (ValueError, RecursionError)
"""What tomllib raises: its own TOMLDecodeError, but also for digits or brackets without end."""


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a recipe can say."""

    root: str
    """Folder of the datasets; on a cluster, one that every machine has mounted."""

    workers: Annotated[int, Meta(ge=0, le=4096)] = 0
    """CPUs given to tasks on this machine; 0: all it has. A cluster knows its own."""

    compare_domains: str | None = None
    """A file of domains for the report to set beside the links' own: one `count name` a line, the
    largest first, names without their public suffix, as in `domains.txt` of openai/gpt-2. None: no
    such table."""

    crawl: CrawlConfig = CrawlConfig()
    """From Reddit's links to measured documents."""

    dedup: DedupConfig = DedupConfig()
    """Near-duplicates."""

    corpus: CorpusConfig = CorpusConfig()
    """The policy: which documents are kept, and the split."""

    training: TrainingConfig = TrainingConfig()
    """The model and how it is trained."""


def load(recipe: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe and apply `a.b=value` words: each value as TOML, else as text."""
    path = Path(recipe)
    try:
        return _placed(_resolved(path, overrides))
    except RecursionError:
        raise BadInput(f"{path}: it, or a key=value word, is nested too deep") from None


def _resolved(path: Path, overrides: Sequence[str]) -> Config:
    said = _read(path)
    whole = deepcopy(said)
    for word in overrides:
        _merge(whole, _parsed(word))
    config, fault = _converted(whole)
    if config is None:
        of_recipe = fault == _converted(said)[1]
        raise BadInput(f"{path}: {fault}" if of_recipe else fault)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such recipe") from None
    except NOT_TOML as error:
        raise BadInput(f"{path}: not TOML: {error}") from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None


def _converted(tree: dict[str, Any]) -> tuple[Config | None, str]:
    """The settings that this tree says, or what is wrong with it."""
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        return None, _in_tree(str(error))
    for path, value, _ in _fields(config, ""):
        if isinstance(value, float) and not math.isfinite(value):
            return None, f"{path}: expected a finite number, got {value}"  # JSON has no other
        if isinstance(value, int) and value.bit_length() > 63:
            return None, f"{path}: expected a number of 64 bits"
    return config, ""


def _parsed(word: str) -> dict[str, Any]:
    key, equals, value = word.partition("=")
    if not equals:
        raise BadInput(f"{word}: expected key=value, such as training.steps=100")
    if not is_text(word):
        raise BadInput(f"{key.encode('utf-8', 'backslashreplace').decode()}: is not UTF-8")
    try:
        return tomllib.loads(f"{key} = {value}")
    except NOT_TOML:
        pass  # not a TOML value: taken as text below
    try:
        return tomllib.loads(f"{key} = {msgspec.json.encode(value).decode()}")
    except NOT_TOML:
        raise BadInput(f"{word}: {key!r} is no key, such as training.steps") from None


def _merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _in_tree(message: str) -> str:
    """msgspec's words with the path in front: `crawl.min_karma: expected int`."""
    what, _, place = message.partition(" - at `$")
    path = place.rstrip("`").lstrip(".")
    what = what.replace("Object contains unknown field", "unknown key").replace("`", "")
    return f"{path}: {what}" if path else what


def _placed(config: Config) -> Config:
    """Relative paths made absolute, from the working directory, before a worker sees them."""
    if not config.root:
        raise BadInput("root: is empty; name the folder for the datasets")
    if "://" in config.root:
        raise BadInput(f"root: {config.root}: must be a folder that is mounted here, not a URI")
    root = _absolute("root", config.root)
    _standing(Path(root))
    crawl, ca_file, compared = config.crawl, config.crawl.ca_file, config.compare_domains
    journal = crawl.journal
    crawl = structs.replace(
        crawl,
        submissions=tuple(_absolute("crawl.submissions", path) for path in crawl.submissions),
        archives=tuple(_absolute("crawl.archives", path) for path in crawl.archives),
        archive_base=_absolute("crawl.archive_base", crawl.archive_base),
        ca_file=_absolute("crawl.ca_file", ca_file) if ca_file else None,
        journal=_absolute("crawl.journal", journal) if journal else None,
    )
    compared = _absolute("compare_domains", compared) if compared else None
    training = _placed_training(config.training)
    return structs.replace(
        config, root=root, compare_domains=compared, crawl=crawl, training=training
    )


def _placed_training(training: TrainingConfig) -> TrainingConfig:
    named = {name: getattr(training, name) for name in ("tokens", "staging", "fork")}
    placed = {name: _absolute(f"training.{name}", path) for name, path in named.items() if path}
    for name, path in placed.items():
        if without_password(path) != path:
            raise BadInput(
                f"training.{name}: a URI must not hold a password: it would be recorded; give it "
                "to fsspec's own configuration"
            )
    return structs.replace(training, **placed)


def _absolute(key: str, path: str) -> str:
    if "\0" in path:
        raise BadInput(f"{key}: {path!a}: holds a null byte")
    chain, chained, last = path.rpartition("::")
    if "://" not in path:
        placed = str(Path(path).absolute())
    elif chained and "://" not in last:
        placed = f"{chain}::{Path(last).absolute()}"
    else:
        placed = path
    if not is_text(placed):
        raise BadInput(f"{key}: {placed!a}: is not UTF-8")
    return placed


def is_text(word: str) -> bool:
    """False for what the system handed us in bytes that are not UTF-8."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _standing(root: Path) -> Path:
    """The folder that stands, of the root and those above it; BadInput where it is of no use."""
    try:
        standing = next(p for p in (root, *root.parents) if p.exists() or p.is_symlink())
        if not standing.is_dir():
            raise BadInput(f"root: {root}: {standing} is not a folder")
        if standing == root:
            os.scandir(root).close()
            (root / "run.json").exists()
    except OSError as error:
        raise BadInput(f"root: {root}: {error.strerror}") from None
    return standing


def check_writable(config: Config) -> None:
    """BadInput where the root could not be written to; makes nothing."""
    root = Path(config.root)
    try:
        with tempfile.TemporaryFile(dir=_standing(root)):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BadInput(f"root: {root}: cannot be written: {error.strerror}") from None


def content(config: Config, dataset: str) -> dict[str, Any]:
    """The settings that change this dataset's content, by their path in the tree."""
    return {path: value for path, value, datasets in _fields(config, "") if dataset in datasets}


def _fields(branch: Struct, prefix: str) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    for name, hint in get_type_hints(type(branch), include_extras=True).items():
        value = getattr(branch, name)
        marks = [meta.extra or {} for meta in getattr(hint, "__metadata__", ())]
        datasets = tuple(d for mark in marks for d in mark.get("changes", ()))
        if datasets or not isinstance(value, Struct):
            yield f"{prefix}{name}", value, datasets
        else:
            yield from _fields(value, f"{prefix}{name}.")


def tree(config: Config) -> dict[str, Any]:
    """The resolved tree as plain values, to be shown and kept: without the passwords that addresses
    in it hold."""
    plain: dict[str, Any] = _shown(msgspec.to_builtins(config))
    return plain


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(one) for one in value]
    return without_password(value) if isinstance(value, str) else value
