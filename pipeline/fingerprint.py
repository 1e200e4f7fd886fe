"""What a dataset is made of: its fingerprint, and what differs between two generations.

Only what changes content is hashed: stage, version, schema, marked settings, versions of libraries,
fingerprints of the inputs, digests of the leaf files. `shards` is hashed because it is the layout
on disk; the rows and the root hash do not depend on it.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from pipeline.stage import Stage


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a fingerprint hashes; written as `begun.json` beside the dataset."""

    dataset: str
    version: int
    columns: list[str]
    settings: dict[str, Any]
    libraries: dict[str, str]
    shards: int
    inputs: dict[str, str]
    leaves: list[str]
    remade: int

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits."""
        text = msgspec.json.encode(self, order="sorted")
        return blake2b(text, digest_size=8).hexdigest()

    def of_leaf(self, content: str) -> str:
        """Names what a task makes that reads one leaf of this content and nothing else: the same,
        whatever other leaves there are."""
        alone = msgspec.structs.replace(self, leaves=[content])
        return alone.fingerprint()


def material(
    stage: Stage,
    shards: int,
    inputs: Mapping[str, str],
    leaves: Sequence[str],
    remade: int,
) -> Material:
    """What `stage` would make its dataset of. `leaves` are content digests, in any order."""
    step = stage.main
    assert step.schema is not None, f"{stage.makes}: a dataset needs a schema"
    return Material(
        dataset=stage.makes,
        version=stage.version,
        columns=[f"{field.name} {field.type}" for field in step.schema],
        settings=msgspec.json.decode(msgspec.json.encode(dict(stage.settings))),
        libraries={name: importlib.metadata.version(name) for name in stage.libraries},
        shards=shards,
        inputs={name: inputs[name] for name in stage.reads},
        leaves=sorted(leaves),
        remade=remade,
    )


def manner(stage: Stage) -> str:
    """Names how a stage makes a row, whatever it is made of: sixteen hexadecimal digits."""
    return material(stage, 1, dict.fromkeys(stage.reads, ""), (), 0).fingerprint()


def differences(old: Material, new: Material) -> list[str]:
    """Why `new` is not `old`: `dedup.threshold 0.8 -> 0.7`. Inputs are named only if nothing else
    differs."""
    found = [
        *_fields("", old.settings, new.settings),
        *_fields("library ", old.libraries, new.libraries),
        *_fields(
            "",
            {"version": old.version, "crawl.shards": old.shards, "remade": old.remade},
            {"version": new.version, "crawl.shards": new.shards, "remade": new.remade},
        ),
    ]
    if old.columns != new.columns:
        found.append("columns " + ", ".join(sorted(set(old.columns) ^ set(new.columns))))
    added, gone = set(new.leaves) - set(old.leaves), set(old.leaves) - set(new.leaves)
    if added or gone:
        found.append(f"input files: {len(added)} added, {len(gone)} gone")
    if not found:
        changed = [name for name in new.inputs if old.inputs.get(name) != new.inputs[name]]
        found = [f"{name} is made anew" for name in changed]
    return found


def _fields(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    keys = sorted({*old, *new})
    return [
        f"{prefix}{key} {_shown(old, key)} -> {_shown(new, key)}"
        for key in keys
        if old.get(key) != new.get(key)
    ]


def _shown(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key, "none")
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
