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
    root = Path(config.root)
    found = state.datasets(root)
    for stage in stages(config, [], []):
        if stage.makes not in found:
            raise BadInput(f"{root}: {stage.makes} is not made yet; run `webtext rebuild` first")
        if reason := next(_differences(config, stage.makes, found), None):
            raise BadInput(
                f"{root}: {stage.makes} is stale ({reason}); run `webtext rebuild` first"
            )
    return found


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
