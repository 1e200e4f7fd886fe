"""The whole run of a recipe, for those who read it: train, audit. And where its training lies.

A run is of a recipe if each of its datasets was made with the recipe's settings and of its own
other datasets. Dumps and archives are not looked at: who trains need not have them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from pipeline import manifest, state
from pipeline.config import Config, content
from pipeline.failures import BadInput
from pipeline.plan import stages
from pipeline.store import Dataset
from training import checkpoint


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


def training(config: Config, tokens: Dataset) -> Path:
    """The folder of the training that these settings make of these tokens."""
    written = {file.name: file.digest for file in tokens.manifest.files}
    content_hash = manifest.root_hash(written)
    return checkpoint.run_folder(Path(config.root) / "training", config.training, content_hash)


def _differences(config: Config, name: str, found: Mapping[str, Dataset]) -> Iterator[str]:
    begun = state.begun(found[name])
    wanted = msgspec.json.decode(msgspec.json.encode(content(config, name)))
    for key, value in wanted.items():
        if begun.settings.get(key) != value:
            yield f"{key} {begun.settings.get(key)} -> {value}"
    for other, mark in begun.inputs.items():
        if other in found and found[other].fingerprint != mark:
            yield f"{other} is of another generation"
