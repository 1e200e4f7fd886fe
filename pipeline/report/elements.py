"""Pieces of the page: numbers for people, tables, badges, places for charts. Rule: every text is
escaped here, once."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Figures = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


def place_of(name: str) -> str:
    """Where a chart of that name will stand."""
    return f"<!--chart {name}-->"


def charted(figures: Figures, name: str, figure: Any, title: str = "") -> str:
    """A place for the figure, which is put into `figures` to be drawn."""
    figures[name] = figure
    head = f"<h3>{text(title)}</h3>" if title else ""
    return f"<div>{head}{place_of(name)}</div>"


def text(value: Any) -> str:
    """Any value as escaped text; numbers grouped by thousands, nothing for what is not there."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"
    return escape(str(value))


def percent(part: float | None, whole: float) -> str:
    """A share as HTML; nothing of nothing is a dash, and so is what nobody knows yet. What there is
    a little of is not said to be nothing."""
    if not whole or part is None:
        return "–"
    shown = f"{100 * part / whole:.1f} %"
    return "&lt; 0.1 %" if part > 0 and shown == "0.0 %" else shown


def link(url: str) -> str:
    """An address as text that can be opened, if it is one of the web; never a script."""
    shown = escape(url if len(url) <= 90 else url[:87] + "…")
    if not url.startswith(("http://", "https://")):
        return shown
    return f'<a rel="noreferrer noopener nofollow" href="{escape(url)}">{shown}</a>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first `words` columns are text and all others numbers; cells are HTML
    already."""

    def cell(tag: str, place: int, html: str) -> str:
        return f"<{tag}{'' if place < words else ' class=n'}>{html}</{tag}>"

    top = "".join(cell("th", place, escape(name)) for place, name in enumerate(head))
    lines = "\n".join(
        f"<tr>{''.join(cell('td', place, html) for place, html in enumerate(row))}</tr>"
        for row in rows
    )
    head_row, body = f"<thead><tr>{top}</tr></thead>", f"<tbody>\n{lines}\n</tbody>"
    return f'<div class="wide"><table>{head_row}{body}</table></div>'


def of(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], words: int = 1) -> str:
    """A table of the rows' named columns, under the headings given."""
    cells = [[text(row.get(column)) for column in columns] for row in rows]
    return table(list(columns.values()), cells, words)


def badge(verdict: str) -> str:
    """A law's verdict, in colour and in words."""
    kind = {"holds": "good", "broken": "bad"}.get(verdict, "open")
    return f'<span class="badge {kind}">{escape(verdict)}</span>'


def tiles(pairs: Sequence[tuple[str, str]]) -> str:
    """A row of figures that matter; values are HTML already."""
    cells = "".join(
        f"<div><b>{value}</b><span>{escape(name)}</span></div>" for name, value in pairs
    )
    return f'<div class="tiles">{cells}</div>'
