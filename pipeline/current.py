"""The whole run of a recipe, for those who read it: train, audit. And where its training lies.

A run is of a recipe if each of its datasets was made with the recipe's settings and of its own
other datasets. Dumps and archives are not looked at: who trains need not have them.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline import manifest, state, trainings
from pipeline.config import Config, content
from pipeline.failures import BadInput, Damaged
from pipeline.manifest import Manifest
from pipeline.plan import stages
from pipeline.store import Dataset, read_as
from training import checkpoint, staging
from training.schema import SPLITS
from training.tokens import open_split


class Shards(NamedTuple):
    """Where token shards are."""

    named: str
    """Folder or URI."""
    folder: Path
    """Where they are on this machine."""
    manifest: str
    """Hash of their manifest, or of the files where they have none."""


def run(config: Config) -> Mapping[str, Dataset]:
    """The ten datasets; BadInput where one is not made yet, or of other settings, and why."""
    found = made(config)
    for stage in stages(config, (), []):
        if stage.makes not in found:
            raise _too_early(config, stage.makes)
    return found


def made(config: Config) -> Mapping[str, Dataset]:
    """Those of the ten that are whole; BadInput where none is, or one is of other settings."""
    found = state.datasets(Path(config.root))
    planned = [stage.makes for stage in stages(config, (), [])]
    if not found:
        raise _too_early(config, planned[0])
    for name in planned:
        if name in found and (reason := next(_differences(config, name, found), None)):
            raise BadInput(
                f"{config.root}: {name} is stale ({reason}); run `webtext rebuild` first"
            )
    return found


def _too_early(config: Config, name: str) -> BadInput:
    return BadInput(f"{config.root}: {name} is not made yet; run `webtext rebuild` first")


def trained(config: Config) -> Path:
    """The folder of the training; of tokens elsewhere that have a manifest nothing else is read."""
    named = config.training.tokens
    written = staging.manifest(named) if named else None
    if written is not None:
        with suppress(ValueError):  # damaged: those who read more of it say so
            return _training(config, _root_hash(msgspec.json.decode(written, type=Manifest)))
    return training(config, shards(config))


def shards(config: Config) -> Shards:
    """The tokens to train on: those of the run, all of them, or those that `training.tokens`
    names, brought here where they are elsewhere."""
    named = config.training.tokens
    if named is None:
        dataset = run(config)["tokens"]
        dataset.require_files()
        return shards_of(dataset)
    local = staging.stage(named, staged(config))
    if (local / "manifest.json").exists():
        try:
            return Shards(named, local, _written(local))
        except Damaged as error:  # nobody here can make them anew
            raise BadInput(f"{local}: manifest.json is damaged; copy the tokens again") from error
    identities = {split: open_split(local, split).identity for split in SPLITS}
    return Shards(named, local, manifest.root_hash(identities))


def staged(config: Config) -> Path:
    """Where copies of shards from a URI lie."""
    return Path(config.training.staging or trainings.folder(config.root) / "staging")


def shards_of(tokens: Dataset) -> Shards:
    """Those of a dataset."""
    return Shards(str(tokens.folder), tokens.folder, _written(tokens.folder))


def training(config: Config, found: Shards) -> Path:
    """The folder of the training that these settings make of these tokens."""
    return _training(config, found.manifest)


def _training(config: Config, tokens: str) -> Path:
    return checkpoint.run_folder(trainings.folder(config.root), config.training, tokens)


def _written(folder: Path) -> str:
    """Names the content of a folder of tokens by what its manifest says is there."""
    return _root_hash(read_as(folder / "manifest.json", Manifest))


def _root_hash(found: Manifest) -> str:
    return manifest.root_hash({file.name: file.digest for file in found.files})


def _differences(config: Config, name: str, found: Mapping[str, Dataset]) -> Iterator[str]:
    begun = state.begun(found[name])
    wanted = msgspec.json.decode(msgspec.json.encode(content(config, name)))
    for key, value in wanted.items():
        if begun.settings.get(key) != value:
            yield f"{key} {begun.settings.get(key)} -> {value}"
    for other, mark in begun.inputs.items():
        if other in found and found[other].fingerprint != mark:
            yield f"{other} is of another generation"
