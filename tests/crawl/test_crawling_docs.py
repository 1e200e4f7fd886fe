"""docs/crawling.md says what the code does: each outcome, each kind of bad input, each figure."""

import re
from pathlib import Path

import pytest

from crawl import names, observations, rounds, status
from crawl.config import CrawlConfig
from crawl.schema import PageOutcome
from pipeline import crawling
from pipeline.cli import webtext
from tests import web_pages, web_robots, web_tls

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/crawling.md").read_text("utf-8")


def rows(first: str) -> list[list[str]]:
    """The cells of the table whose first column has this head."""
    table = PAGE.partition(f"\n| {first} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")]
            for line in table.splitlines()[2:]]  # fmt: skip


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_outcome_is_explained_once() -> None:
    told = [name for row in rows("outcome") for name in quoted(row[0])]
    assert sorted(told) == sorted(PageOutcome)


def test_the_bounds_have_the_defaults_of_the_code() -> None:
    found = rows("key of `[crawl]`")
    assert len(found) > 15
    for key, default, _ in found:
        (name,) = quoted(key)
        assert float(default) == getattr(CrawlConfig(), name), name


def test_every_key_that_the_page_names_is_one() -> None:
    mentioned = set(re.findall(r"`(?:crawl\.)?((?:max|min)_\w+|retr\w+|\w+_s|asks|journal)`", PAGE))
    assert len(mentioned) > 15
    assert not {name for name in mentioned if name not in CrawlConfig.__struct_fields__}


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("page", {kind: page.outcome for kind, page in web_pages.KINDS.items()}),
        ("robots.txt", {kind: file.outcome for kind, file in web_robots.KINDS.items()}),
        (
            "certificate",
            {kind: "ok" if kind == "good" else "tls_error" for kind in web_tls.KINDS},
        ),
    ],
)
def test_every_kind_of_bad_input_has_the_outcome_that_it_is_held_to(
    first: str, expected: dict[str, str]
) -> None:
    told = {kind: quoted(row[2])[0] for row in rows(first) for kind in quoted(row[1])}
    assert told == expected
    assert sum(len(quoted(row[1])) for row in rows(first)) == len(told)  # each once


def test_every_other_row_has_its_test() -> None:
    found = [quoted(row[2])[0] for row in rows("input")]
    assert len(found) >= 20
    for name in found:
        path, _, test = name.partition("::")
        assert f"def {test}(" in (ROOT / path).read_text("utf-8"), name


def test_what_can_be_said_to_a_crawl_is_listed() -> None:
    told = " ".join(row[0] for row in rows("command"))
    flags = {flag for parameter in webtext.commands["steer"].params for flag in parameter.opts
             if flag.startswith("--")}  # fmt: skip
    assert set(re.findall(r"--[a-z-]+", told)) == flags
    for word in ("pause", "go", "stop"):
        assert f"steer RECIPE {word}`" in told


def test_figures_in_the_text_are_those_of_the_code() -> None:
    minutes, mib = observations.SEGMENT_S / 60, observations.SEGMENT_BYTES >> 20
    assert (minutes, rounds.ROUNDS, names.KEPT_S / 60, observations.SYNC_S) == (10, 5, 10, 2)
    assert f"ended at {mib} MiB, at {observations.SEGMENT_ROWS:,} rows or after ten minutes" in PAGE
    assert "There are five rounds after the first" in PAGE
    assert "an answer is used for ten minutes" in PAGE
    assert "is open is synced every two seconds" in PAGE and status.RATE_S == 60
    assert crawling.lasting(20_000) in PAGE
    assert f"`crawl.asks` ({CrawlConfig().asks})" in PAGE


def test_every_file_that_the_page_names_is_there() -> None:
    for name in re.findall(r"`((?:crawl|tests)/[\w/.]+)`|\]\((\w[\w-]+\.md)\)", PAGE):
        path = ROOT / name[0] if name[0] else ROOT / "docs" / name[1]
        assert path.exists(), name
