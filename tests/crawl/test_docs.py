"""docs/links.md and docs/archives.md list every reason and outcome there is, and no other."""

import re
from pathlib import Path

import pytest

from crawl import columnar, ranges, sought
from crawl.schema import Capture, LeftOut, LinkOutcome
from pipeline import config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/links.md").read_text("utf-8")
ARCHIVES = (ROOT / "docs/archives.md").read_text("utf-8")


def listed(heading: str, page: str = PAGE) -> list[str]:
    """The first column of the table under a heading."""
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_every_reason_is_explained() -> None:
    assert sorted(listed("What a record can end as")) == sorted(LeftOut)


def test_every_outcome_is_explained() -> None:
    assert sorted(listed("What is refused")) == sorted(set(LinkOutcome) - {LinkOutcome.KEPT})


def test_what_becomes_of_every_capture_is_explained() -> None:
    assert sorted(listed("What becomes of a record or a row", ARCHIVES)) == sorted(Capture)


def test_the_bounds_on_archives_are_those_of_the_code() -> None:
    for told in (
        f"{ranges.GAP_BYTES >> 10} KiB apart",
        f"at most {ranges.RANGE_BYTES >> 20} MiB",
        f"{ranges.TOGETHER} requests are in flight",
        f"asked {ranges.ATTEMPTS} times",
        f"{ranges.STALLED_S:.0f} s of silence",
        f"more than {sought.MAX_DOMAINS:,} hosts",
        *(f"`{name}`" for name in (*columnar.NEEDED.values(), *columnar.HELPFUL, columnar.KEY)),
    ):
        assert told in ARCHIVES, told


@pytest.mark.parametrize("name", re.findall(r"^\| `(\w+\.toml)` \|", PAGE, re.MULTILINE))
def test_every_profile_is_a_recipe_that_loads(name: str) -> None:
    found = config.load(ROOT / "recipes" / name).crawl
    assert found.min_karma == 3 and "wikipedia.org" in found.refused_domains
    rule = {"openwebtext.toml": "any"}.get(name, "sum")
    last = {"webtext2018.toml": "2017-12-31", "openwebtext2.toml": "2020-04-30"}.get(name)
    assert (found.karma_rule, found.until and str(found.until)) == (rule, last)


def test_every_file_that_the_page_names_is_there() -> None:
    for name in re.findall(r"`((?:crawl|tests)/[\w/.]+)`", PAGE + ARCHIVES):
        assert (ROOT / name).exists(), name
