"""docs/training.md names every field of the metrics and what a run's folder holds."""

import re
from pathlib import Path

import msgspec
import pytest

from training import metrics
from training.config import PRESETS, TrainingConfig

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/training.md").read_text()


def test_every_field_of_a_line_is_in_the_table() -> None:
    told = set(re.findall(r"\b[a-z_]+\b", metrics.__doc__ or ""))
    table = TEXT.split("## Metrics")[1].split("## Determinism")[0]
    rows = {
        name
        for row in re.findall(r"^\| (`.*?) \|", table, re.M)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert rows and rows <= told
    assert {"step", "loss", "mfu", "validation_loss", "steps_not_applied"} <= rows


@pytest.mark.parametrize("name", sorted(re.findall(r"training\.([a-z_]+)", TEXT)))
def test_every_key_that_is_named_is_one(name: str) -> None:
    modules = {path.stem for path in (ROOT / "training").glob("*.py")}
    assert name in {field.name for field in msgspec.structs.fields(TrainingConfig)} | modules


def test_parameters_are_those_of_the_presets() -> None:
    assert all(f"{sizes.parameters():,}" in TEXT for sizes in PRESETS.values())
