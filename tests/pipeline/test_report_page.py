"""The report's page: whole, safe against what the web says, offline, the same each time."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bokeh.models import Span

from pipeline.report import charts, elements, facts, link_sections, page, sections
from pipeline.report.domains import Listed
from pipeline.store import Dataset
from tests.pipeline import made_run

LAWS = [
    {"number": "1", "name": "nothing vanishes", "verdict": "holds", "evidence": "12 = 12"},
    {"number": "2", "name": "<b>bold</b>", "verdict": "broken", "evidence": "<script>x</script>"},
    {"number": "3", "name": "later", "verdict": "not checked", "evidence": "no canaries"},
]

OWN_SCRIPTS = charts.library().count("<script") + 1
"""The library's and the one that draws the charts."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    return made_run.make(tmp_path_factory.mktemp("run"), links=200)


@pytest.fixture(scope="module")
def gathered(run: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("training")
    lines = [
        {"step": n, "loss": 10 / n, "lr": 1e-3, "tokens": n, "seconds": 0.1} for n in (1, 2, 3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return facts.gather(run, folder)


@pytest.fixture(scope="module")
def html(gathered: dict[str, Any]) -> str:
    return page.render(gathered, LAWS)


class Reader(HTMLParser):
    """Collects tags and the texts between them; scripts and styles are no text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("script", "style"):
            self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def test_every_section_is_there(html: str) -> None:
    for key, title, _ in page.SECTIONS:
        assert f'<section id="{key}"><h2>{title}</h2>' in html
    assert "Not made yet" not in html
    assert "<!--chart" not in html


def test_what_the_web_says_stays_text(html: str, gathered: dict[str, Any]) -> None:
    urls = [url for one in gathered["duplicates"]["largest"] for url in one["urls"]]
    assert made_run.HOSTILE_URL in urls, "else this test shows nothing"
    shown = read(html)
    assert made_run.HOSTILE_URL in "".join(shown.text)
    assert shown.tags.count("script") == OWN_SCRIPTS
    assert not any(name.startswith("on") for name, _ in shown.attributes)


def test_a_hostile_document_is_escaped_wherever_it_stands() -> None:
    facts_ = facts.gather({}, None)
    facts_["samples"] = {
        made_run.HOSTILE: [
            {
                "url": "javascript:alert(1)",
                "title": made_run.HOSTILE,
                "characters": 3,
                "head": made_run.HOSTILE_TEXT,
            }
        ]
    }
    facts_["duplicates"] = {
        **{"pairs": 1, "clusters": 1, "dropped": 1, "threshold": 0.8, "jaccard": None, "sizes": []},
        "largest": [{"urls": [made_run.HOSTILE_URL], "size": 1, "dropped": 0}],
    }
    facts_["months"] = [{"month": "</script><script>alert(3)</script>", "posts": 1}]
    drawn = page.render(facts_, LAWS)
    shown = read(drawn)
    assert made_run.HOSTILE_TEXT in "".join(shown.text)
    assert "<script>alert" not in drawn
    assert "<b>bold</b>" not in drawn
    assert not any((value or "").startswith("javascript:") for _, value in shown.attributes)
    assert shown.tags.count("script") == drawn.count("</script>") == OWN_SCRIPTS
    assert "img" not in shown.tags


def test_hostile_names_reasons_and_faults_are_escaped(tmp_path: Path) -> None:
    hostile = made_run.HOSTILE_TEXT
    run = made_run.make(tmp_path, links=30)
    facts_ = facts.gather(run, None, listed=Listed({hostile: 5, "b": 2}, 7))
    facts_["left_out"]["submissions"]["reasons"].append(
        {"reason": hostile, "count": 1, "share": 0.1}
    )
    facts_["faults"]["first"] = [hostile]
    facts_["domains"]["by_links"][0]["domain"] = hostile
    facts_["domains"]["by_followed"][0]["domain"] = hostile
    drawn = page.render(facts_, LAWS)
    shown = read(drawn)
    assert shown.text.count(hostile) == 6, "these five, and the sample of the run itself"
    assert "<script>alert" not in drawn and "img" not in shown.tags
    assert shown.tags.count("script") == OWN_SCRIPTS


def test_losses_say_what_is_not_made_and_what_there_is_none_of() -> None:
    part = {"submissions": {"of": 4, "reasons": []}, "links": None}
    shown = "".join(read(link_sections.left_out(part, {})).text)
    assert "0 of 4 left out (0.0 %)." in shown and "Not made yet." in shown
    none: dict[str, Any] = {"count": 0, "malformed": 0, "truncated": 0, "first": []}
    assert "stand" not in link_sections.faults(none, {})


def test_the_beginning_of_the_faults_is_said_to_be_one() -> None:
    some = {"count": 2, "malformed": 2, "truncated": 0, "first": ["a: byte 7: malformed"] * 2}
    assert "Where they stand" in link_sections.faults(some, {})
    assert "Where the first 2 stand" in link_sections.faults(some | {"count": 3}, {})


def test_each_number_of_a_compared_domain_stands_under_its_heading() -> None:
    row = {"name": "bbc", "rank": 2, "count": 30, "share": 0.25}
    row |= {"our_rank": None, "followed": 0, "our_share": 0.125}
    compared = {"names": 9, "shared": 8, "first": 7, "first_shared": 6, "followed_share": 0.5}
    compared |= {"correlation": None, "top": [row]}
    facts_ = {"domains": 1, "domains_followed": 1, "links": 1, "followed": 1}
    facts_ |= {"by_links": [], "by_followed": [], "compared": compared}  # type: ignore[dict-item]
    shown = [one for one in read(link_sections.domains(facts_, {})).text if one.strip()]
    assert shown[-14:] == [
        "name", "rank in the list", "count", "share", "rank here", "to follow", "share",
        "bbc", "2", "30", "25.0 %", "–", "0", "12.5 %"
    ]  # fmt: skip
    assert shown[-22:-18] == [
        "–",
        "rank correlation (Spearman)",
        "8 of 9",
        "names that stand in both",
    ]
    facts_["compared"] = None
    assert "beside" not in link_sections.domains(facts_, {}).lower()


def test_loads_nothing_from_anywhere(html: str) -> None:
    shown = read(html)
    assert not [value for name, value in shown.attributes if name == "src"]
    assert "link" not in shown.tags
    assert "default-src 'none'" in html
    assert not re.search(r"cdn\.|googleapis|unpkg|jsdelivr", html)


def test_is_under_five_megabytes(html: str) -> None:
    assert len(html.encode()) < 5_000_000


def test_the_same_facts_give_the_same_page(gathered: dict[str, Any], html: str) -> None:
    assert page.render(gathered, LAWS) == html


def test_verdicts_are_words_as_well_as_colours(html: str) -> None:
    for verdict in ("holds", "broken", "not checked"):
        assert f">{verdict}</span>" in html


@pytest.mark.parametrize("verdict, said", [("broken", "1 broken"), ("holds", "2 hold")])
def test_the_summary_says_whether_a_law_is_broken(verdict: str, said: str) -> None:
    laws = [LAWS[0], LAWS[0] | {"verdict": verdict}]
    drawn = page.render(facts.gather({}, None), laws)
    head = "".join(read(drawn.partition("<main>")[0]).text)
    assert said in head


def test_the_funnel_s_shares_are_of_the_step_above() -> None:
    steps = [
        {"step": "a", "count": 200, "lost": {}},
        {"step": "b", "count": 50, "lost": {"x": 150}},
    ]
    shown = read(sections.funnel(steps, {})).text
    assert "25.0 %" in shown and "−150" in shown


def test_each_number_of_a_rule_stands_under_its_heading() -> None:
    row = {"rule": "min_words", "documents": 7, "alone": 5, "with_others": 2}
    shown = [text for text in read(sections.rules([row], {})).text if text.strip()]
    assert shown[-8:] == [
        "rule", "would drop", "alone", "with others", "min words", "7", "5", "2"
    ]  # fmt: skip


def test_the_policy_s_limits_are_drawn_where_the_charts_reach(gathered: dict[str, Any]) -> None:
    figures: dict[str, Any] = {}
    sections.signals(gathered["signals"], figures)
    drawn = {name: chart.select({"type": Span}) for name, chart in figures.items()}
    spans = {name: [span.location for span in found] for name, found in drawn.items()}
    assert 50 in spans["signal-words"]
    assert spans["signal-language_score"] == [0.5]
    assert spans["signal-lines"] == []


@pytest.mark.parametrize("url", ["httpx:alert(1)", "http:alert(1)", "data:text/html,x", ""])
def test_what_is_no_address_of_the_web_cannot_be_opened(url: str) -> None:
    assert "href" not in elements.link(url)


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(1, 4, "25.0 %"), (1, 39123, "&lt; 0.1 %"), (0, 4, "0.0 %"), (0, 0, "–"), (None, 4, "–")],
)
def test_a_share_of_a_little_is_not_nothing(part: int | None, whole: int, shown: str) -> None:
    assert elements.percent(part, whole) == shown


def test_an_empty_run_says_what_is_not_made() -> None:
    drawn = page.render(facts.gather({}, None), [])
    assert drawn.count("Not made yet") >= 10


@pytest.mark.parametrize("upto", [1, 2, 4, 8, 9])
def test_any_beginning_of_a_run_can_be_drawn(run: dict[str, Dataset], upto: int) -> None:
    part = dict(list(run.items())[:upto])
    drawn = page.render(facts.gather(part, None), LAWS)
    assert "Not made yet" in drawn
    assert drawn.rstrip().endswith("</html>")


def test_no_share_is_said_of_a_corpus_that_is_not_made(run: dict[str, Dataset]) -> None:
    part = facts.gather(dict(list(run.items())[:2]), None)
    assert " %" not in link_sections.karma(part["karma"], {})
    assert " %" in link_sections.karma(facts.gather(run, None)["karma"], {})
    assert "Not whole yet" in page.render(part, LAWS)


def test_facts_that_went_through_json_draw_the_same_page(
    gathered: dict[str, Any], html: str
) -> None:
    assert page.render(json.loads(json.dumps(gathered)), LAWS) == html


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0001, "0.0001"), (0.12345, "0.12345"), (2019, "2019"), (True, "true")]
)
def test_a_setting_can_be_cited_as_it_stands(value: object, shown: str) -> None:
    assert sections._setting(value) == f"<code>{shown}</code>"


def test_numbers_are_right_aligned_and_grouped(html: str) -> None:
    assert re.search(r"<td class=n>\d{1,3},\d{3}</td>", html)


def test_written_file_opens_as_utf8(html: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(html.encode())
    assert (tmp_path / "report.html").read_text("utf-8") == html
