"""The whole run of a recipe, for those who read it: train, audit.

A run is of a recipe if each of its datasets was made with the recipe's settings and of its own
other datasets. Dumps and archives are not looked at: who trains need not have them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from pipeline import state
from pipeline.config import Config, content
from pipeline.failures import BadInput
from pipeline.plan import stages
from pipeline.store import Dataset


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


def _differences(config: Config, name: str, found: Mapping[str, Dataset]) -> Iterator[str]:
    begun = state.begun(found[name])
    wanted = msgspec.json.decode(msgspec.json.encode(content(config, name)))
    for key, value in wanted.items():
        if begun.settings.get(key) != value:
            yield f"{key} {begun.settings.get(key)} -> {value}"
    for other, mark in begun.inputs.items():
        if other in found and found[other].fingerprint != mark:
            yield f"{other} is of another generation"
