"""Everything that the report says, as plain values: the content of `report.json`.

Counts come from the manifests, the rest from one read of the Parquet files with duckdb. Rule: no
clock and no chance; a dataset that is not made yet leaves its sections `None`.
"""

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.manifest import Manifest, root_hash
from pipeline.report import crawled, curated, domains, funnel, losses
from pipeline.report.domains import Listed
from pipeline.report.tables import opened
from pipeline.store import Dataset, read_as, read_json
from training import metrics

SMOOTHED = 10
"""Steps whose mean is the last loss: a single small batch says little."""
CURVE_POINTS = 1000
"""Points of the loss curve, about, and looks at the held-out split beside them; longer trainings
are thinned evenly, but the last step stays."""


def gather(
    run: Mapping[str, Dataset],
    training_folder: Path | None,
    seed: int = 0,
    listed: Listed | None = None,
) -> dict[str, Any]:
    """The facts of a run: JSON-ready. `run` holds its whole datasets by name, in the plan's order.

    `training_folder` is where `metrics.jsonl` and `evaluation.json` lie; `seed` chooses the
    samples; `listed` are domains to set beside the links' own.
    """
    made = {name: dataset.manifest for name, dataset in run.items()}
    passport = _passport(run, made)
    settings = passport["settings"]
    with opened(run) as tables:
        return {
            "passport": passport,
            "funnel": funnel.steps(made),
            "left_out": losses.left_out(made),
            "faults": losses.faults(made),
            "karma": crawled.karma(tables),
            "repeats": crawled.repeats(tables),
            "months": crawled.months(tables),
            "domains": domains.found(tables, listed),
            "hosts": crawled.hosts(tables),
            "fetches": crawled.fetches(tables),
            "languages": curated.languages(tables),
            "signals": curated.signals(tables, settings),
            "duplicates": curated.duplicates(tables, settings),
            "rules": curated.rules(tables),
            "tokens": curated.tokens(tables),
            "training": _training(training_folder),
            "samples": curated.samples(tables, seed),
        }


def _passport(run: Mapping[str, Dataset], made: Mapping[str, Manifest]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    libraries: dict[str, str] = {}
    for dataset in run.values():
        begun = read_json(dataset.folder / "begun.json")
        settings |= begun["settings"]
        libraries |= begun["libraries"]
    return {
        # of a whole run alone: all others stand below the tokens
        "root_hash": root_hash({name: one.set_hash for name, one in made.items()})
        if "tokens" in made
        else None,
        "versions": {"webtext": _version(), "python": platform.python_version(), **libraries},
        "settings": dict(sorted(settings.items())),
        "datasets": [_row(one) for one in made.values()],
    }


def _version() -> str:
    try:
        return importlib.metadata.version("webtext")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "not installed"


def _row(manifest: Manifest) -> dict[str, Any]:
    return {
        "dataset": manifest.dataset,
        "fingerprint": manifest.fingerprint,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "files": len(manifest.files),
        "seconds": manifest.seconds,
    }


def _training(folder: Path | None) -> dict[str, Any] | None:
    first = metrics.first(folder) if folder else None
    if folder is None or first is None:
        return None
    last = metrics.tail(folder, SMOOTHED)
    count = looks = 0
    seconds = 0.0
    for line in metrics.lines(folder):
        count, looks = count + 1, looks + ("validation_loss" in line)
        seconds += line.get("seconds") or 0.0
    evaluation = folder / "evaluation.json"
    return {
        "steps": last[-1]["step"],
        "first_loss": first["loss"],
        "last_loss": sum(line["loss"] for line in last) / len(last),
        "tokens": last[-1].get("tokens"),
        "seconds": round(seconds, 3),
        "curve": list(_thinned(folder, count, looks)),
        "evaluation": read_as(evaluation, dict[str, Any], maker="evaluate")
        if evaluation.exists()
        else None,
    }


def _thinned(folder: Path, count: int, looks: int) -> Iterator[dict[str, Any]]:
    """Of so many lines of which so many have looked."""
    every, of_looks = (max(1, -(-number // CURVE_POINTS)) for number in (count, looks))
    looked = 0
    for place, line in enumerate(metrics.lines(folder)):
        has_looked = "validation_loss" in line
        if place % every == 0 or place == count - 1 or (has_looked and looked % of_looks == 0):
            yield line
        looked += has_looked
