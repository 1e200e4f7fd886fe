"""The report's charts: bokeh figures that read on light and on dark ground, and the script that
draws them.

Rule: no address of another machine goes into the page; what bokeh would load on demand for features
that are not used here is taken out.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.embed import components
from bokeh.models import ColumnDataSource, HoverTool, NumeralTickFormatter
from bokeh.models.annotations import Span
from bokeh.plotting import figure
from bokeh.resources import Resources

Figure = Any
"""bokeh has no types."""

BLUE, ORANGE, RED, GREY = "#4a8fd6", "#e08a3c", "#d64a4a", "#8b929c"
HEIGHT, SMALL_HEIGHT = 260, 190
_ELSEWHERE = re.compile(r"https?://(?:cdn\.jsdelivr\.net|maps\.googleapis\.com)/[^\s\"'`]*")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MODEL = re.compile(r'"id":"(p\d+)"')


def library() -> str:
    """bokeh's script, to stand in the page's head."""
    script: str = Resources(mode="inline", components=["bokeh"]).render_js()
    return _ELSEWHERE.sub("about:blank", script)


def drawn(figures: Mapping[str, Figure]) -> tuple[str, dict[str, str]]:
    """The script that draws the figures, and the place of each: the same figures, the same text."""
    if not figures:
        return "", {}
    script, places = components(dict(figures))
    names = {old: f"chart-{new}" for new, old in enumerate(dict.fromkeys(_UUID.findall(script)))}
    models = {old: f"m{new}" for new, old in enumerate(dict.fromkeys(_MODEL.findall(script)))}

    def renamed(text: str) -> str:
        text = _UUID.sub(lambda found: names.get(found[0], found[0]), text)
        return re.sub(r'"(p\d+)"', lambda found: f'"{models.get(found[1], found[1])}"', text)

    return renamed(script), {name: renamed(place) for name, place in places.items()}


def histogram(
    found: Mapping[str, Sequence[float]],
    label: str,
    *,
    log: bool = False,
    cuts: Sequence[float | None] = (),
    small: bool = False,
) -> Figure:
    """Counts over the edges of bins; `cuts` are the policy's limits, drawn as red lines."""
    chart = _blank(label, small, x_axis_type="log" if log else "linear")
    edges = found["edges"]
    source = {"left": edges[:-1], "right": edges[1:], "top": found["counts"]}
    chart.quad(left="left", right="right", top="top", bottom=0, fill_color=BLUE, line_color=None,
               fill_alpha=0.85, source=_source(source))  # fmt: skip
    for cut in cuts:
        if cut is not None and edges[0] <= cut <= edges[-1]:
            chart.add_layout(Span(location=cut, dimension="height", line_color=RED, line_width=2))
    _hover(
        chart, [("from", "@left{0,0.[000]}"), ("below", "@right{0,0.[000]}"), ("n", "@top{0,0}")]
    )
    return chart


def bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Bars over names, in the order given; a second series stands in front of the first."""
    chart = _blank(label, False, x_range=list(labels))
    for (name, values), colour in zip(series.items(), (BLUE, ORANGE), strict=False):
        chart.vbar(x="x", top="top", width=0.8, fill_color=colour, line_color=None, fill_alpha=0.9,
                   source=_source({"x": list(labels), "top": list(values)}),
                   **({"legend_label": name} if len(series) > 1 else {}))  # fmt: skip
    _hover(chart, [("", "@x"), ("n", "@top{0,0.[0]}")])
    _legend(chart)
    chart.xaxis.major_label_orientation = 0.9 if len(labels) > 12 else 0
    chart.xgrid.visible = False
    if len(labels) > 24:  # of many months, the tooltip says which
        chart.xaxis.major_label_text_font_size = "0px"
    return chart


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], label: str, digits: str = "0.00"
) -> Figure:
    """One line for each name, of its x and y values."""
    chart = _blank(label, False)
    for (name, (xs, ys)), colour in zip(series.items(), (BLUE, ORANGE), strict=False):
        source = _source({"x": list(xs), "y": list(ys)})
        chart.line("x", "y", source=source, line_color=colour, line_width=2, legend_label=name)
        if len(xs) < 40:
            chart.scatter("x", "y", source=source, color=colour, size=6)
    _hover(chart, [("step", "@x{0,0}"), ("value", "@y{0.0000}")])
    _legend(chart)
    chart.yaxis.formatter = NumeralTickFormatter(format=digits)
    return chart


def _source(columns: dict[str, Any]) -> Any:
    return ColumnDataSource(columns)


def _blank(label: str, small: bool, **more: Any) -> Figure:
    chart = figure(height=SMALL_HEIGHT if small else HEIGHT, sizing_mode="stretch_width",
                   toolbar_location=None, tools="", **more)  # fmt: skip
    chart.background_fill_color = chart.border_fill_color = None
    chart.outline_line_color = None
    chart.min_border_right = 12
    chart.xaxis.axis_label = label
    chart.xaxis.axis_label_text_font_style = "normal"
    chart.yaxis.formatter = NumeralTickFormatter(format="0.[0]a")
    for axis in (*chart.xaxis, *chart.yaxis):
        axis.axis_line_color = axis.major_tick_line_color = GREY
        axis.minor_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = GREY
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
    for grid in (*chart.xgrid, *chart.ygrid):
        grid.grid_line_color, grid.grid_line_alpha = GREY, 0.22
    return chart


def _hover(chart: Figure, tooltips: list[tuple[str, str]]) -> None:
    chart.add_tools(HoverTool(tooltips=tooltips))


def _legend(chart: Figure) -> None:
    if chart.legend:
        chart.legend.background_fill_color = chart.legend.border_line_color = None
        chart.legend.label_text_color = GREY
        chart.legend.label_text_font_size = "12px"
