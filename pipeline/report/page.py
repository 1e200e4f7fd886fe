"""One HTML file that tells what a run is. It opens offline: style, script and data are in it.

Rule: a function of the facts and the laws; a section whose facts are None says that its datasets
are not made yet. The page's own policy lets a browser load nothing from anywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.report import charts, link_sections, sections
from pipeline.report.elements import badge, place_of, table, text

STYLE = Path(__file__).with_name("style.css")
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"

Facts = Mapping[str, Any]
Section = Callable[[Any, dict[str, Any]], str]

SECTIONS: tuple[tuple[str, str, Section], ...] = (
    ("funnel", "Funnel", sections.funnel),
    ("left_out", "Left out", link_sections.left_out),
    ("faults", "Could not be read", link_sections.faults),
    ("karma", "Karma", link_sections.karma),
    ("repeats", "Repeats", link_sections.repeats),
    ("months", "Time", link_sections.months),
    ("domains", "Domains", link_sections.domains),
    ("fetches", "Crawl", link_sections.fetches),
    ("hosts", "Hosts", link_sections.hosts),
    ("languages", "Languages", sections.languages),
    ("signals", "Signals", sections.signals),
    ("duplicates", "Duplicates", sections.duplicates),
    ("rules", "Rules", sections.rules),
    ("tokens", "Tokens", sections.tokens),
    ("training", "Training", sections.training),
    ("samples", "Samples", sections.samples),
    ("passport", "Passport", sections.passport),
)
"""Key of the facts (and anchor of the section), title, and who writes it."""


def render(facts: Facts, laws: Sequence[Mapping[str, Any]]) -> str:
    """The page. `facts` as `facts.gather` gives them; a law has number, name, verdict, evidence."""
    figures: dict[str, Any] = {}
    written = [
        (key, title, _section(facts.get(key), make, figures)) for key, title, make in SECTIONS
    ]
    script, places = charts.drawn(figures)
    body = "\n".join(
        f'<section id="{key}"><h2>{title}</h2>\n{html}\n</section>' for key, title, html in written
    )
    for name, place in places.items():
        body = body.replace(place_of(name), place)
    links = [("laws", "Laws"), *((key, title) for key, title, _ in SECTIONS)]
    menu = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title in links)
    root_hash: str | None = facts["passport"]["root_hash"]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>webtext report {text((root_hash or "")[:8])}</title>
<style>
{STYLE.read_text("utf-8")}</style>
{charts.library() if figures else ""}
</head>
<body>
<header><h1>What this corpus is</h1>
<p class="soft">{f"Root hash <code>{text(root_hash)}</code>" if root_hash else "Not whole yet."}</p>
{sections.summary(facts, laws)}</header>
<nav aria-label="Sections"><ul>{menu}</ul></nav>
<main>
<section id="laws"><h2>Laws</h2>
{_laws(laws)}
</section>
{body}
</main>
<footer>Written by webtext audit. The same numbers stand in report.json.</footer>
{script}
</body>
</html>
"""


def _section(found: Any, make: Section, figures: dict[str, Any]) -> str:
    if found is None:
        return '<p class="soft">Not made yet.</p>'
    if found == []:
        return '<p class="soft">Nothing to show: there are none.</p>'
    return make(found, figures)


def _laws(laws: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            escape(str(law["number"])),
            text(law["name"]),
            badge(law["verdict"]),
            text(law["evidence"]),
        ]
        for law in laws
    ]
    return table(["", "law", "verdict", "evidence"], rows, words=4)
