"""docs/links.md lists every reason and outcome there is, and no other."""

import re
from pathlib import Path

import pytest

from crawl.schema import LeftOut, LinkOutcome
from pipeline import config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/links.md").read_text("utf-8")


def listed(heading: str) -> list[str]:
    """The first column of the table under a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_every_reason_is_explained() -> None:
    assert sorted(listed("What a record can end as")) == sorted(LeftOut)


def test_every_outcome_is_explained() -> None:
    assert sorted(listed("What is refused")) == sorted(set(LinkOutcome) - {LinkOutcome.KEPT})


@pytest.mark.parametrize("name", re.findall(r"^\| `(\w+\.toml)` \|", PAGE, re.MULTILINE))
def test_every_profile_is_a_recipe_that_loads(name: str) -> None:
    found = config.load(ROOT / "recipes" / name).crawl
    assert found.min_karma == 3 and "wikipedia.org" in found.refused_domains
    rule = {"openwebtext.toml": "any"}.get(name, "sum")
    last = {"webtext2018.toml": "2017-12-31", "openwebtext2.toml": "2020-04-30"}.get(name)
    assert (found.karma_rule, found.until and str(found.until)) == (rule, last)


def test_every_file_that_the_page_names_is_there() -> None:
    for name in re.findall(r"`((?:crawl|tests)/[\w/.]+)`", PAGE):
        assert (ROOT / name).exists(), name
