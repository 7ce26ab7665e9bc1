"""What a panel is: a heading, text, and charts that each say their finding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.report import field
from jobs.report.field import Field
from jobs.report.text import EMPTY, Html, escape, number, script_json, table, tag
from jobs.rundir import Row

Style = Literal["trend", "faint", "dashed", "points", "mark", "area"]
Symbol = Literal["circle", "star", "diamond", "square", "cross"]
Colour = Literal["blue", "orange", "green", "grey", "ink"]
Pattern = Literal["", "/", "."]


@dataclass(frozen=True)
class Series:
    """One curve. `colour` names a variable of page.css; no two series of a chart differ by colour alone."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    style: Style
    """An `area` is stacked upon those before it, which have the same `xs`."""
    colour: Colour
    symbol: Symbol = "circle"
    pattern: Pattern = ""
    """Strokes or dots on an area, so that colour alone need not tell it."""
    notes: Sequence[str] = ()
    """What pointing at each point says instead of its numbers."""


@dataclass(frozen=True)
class Chart:
    """A drawing, the finding it shows as its title, and one sentence for a reader who does not code."""

    key: str
    title: str
    sentence: str
    series: Sequence[Series]
    x_title: str
    y_title: str
    epochs: Sequence[tuple[float, str]] = ()
    """Ticks along the top: step and label."""
    lines: Sequence[float] = ()
    """Places on the x axis where the run was restarted."""
    bands: Sequence[tuple[float, float]] = ()
    """Spans of the x axis in which training paused."""
    logarithmic: bool = False
    from_zero: bool = False
    """Whether the y axis begins at 0, so that heights compare."""
    x_ticks: Sequence[float] = ()
    """Ticks of the x axis, which is then logarithmic."""
    y_ticks: Sequence[float] = ()
    """The same of the y axis."""
    field: Field | None = None
    """A background of coloured bands."""
    head: tuple[str, ...] = ()
    rows: Sequence[Sequence[object]] = ()
    """The same as a table, for readers without the drawing."""


@dataclass(frozen=True)
class Panel:
    """One section of the page."""

    key: str
    title: str
    body: Html = EMPTY
    charts: Sequence[Chart] = ()


def missing(key: str, title: str, sentence: str) -> Panel:
    """A panel whose data is not there, and why."""
    return Panel(key, title, tag("p", sentence, class_="missing"))


def render(panel: Panel) -> Html:
    """The section as HTML."""
    heading = tag("h2", panel.title, id=f"{panel.key}-title")
    charts = (render_chart(chart) for chart in panel.charts)
    return tag(
        "section", heading, panel.body, *charts, id=panel.key, class_="panel", aria_labelledby=f"{panel.key}-title"
    )


def render_chart(chart: Chart) -> Html:
    """Title, legend, drawing (made by page.js from JSON), sentence and table."""
    data = Html(f'<script type="application/json">{script_json(figure(chart))}</script>')
    drawing = tag("div", class_="drawing", role="img", aria_label=f"{chart.title}. {chart.sentence}")
    numbers = tag(
        "details",
        tag("summary", "Show the numbers"),
        scroll(
            table(chart.head, ([_cell(c) for c in row] for row in chart.rows), chart.title), f"Numbers: {chart.title}"
        ),
    )
    return tag(
        "figure",
        tag("h3", chart.title),
        legend(chart),
        tag("div", drawing, data, class_="chart"),
        tag("figcaption", chart.sentence),
        numbers if chart.rows else "",
        id=chart.key,
    )


def scroll(content: Html, label: str) -> Html:
    """A wide table may scroll inside this; the page itself never does. Focusable, for keyboards."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def _cell(value: object) -> str:
    return value if isinstance(value, str) else number(value)


# Plotly's JSON, the only place that knows its words

RESTARTS = "run was restarted here"
PAUSES = "training paused"
_WIDTH: dict[Style, float] = {"trend": 2.5, "faint": 1, "dashed": 2, "points": 2, "mark": 0, "area": 0.5}
_PLOTLY_SYMBOL: dict[Symbol, str] = {"cross": "x"}


def figure(chart: Chart) -> Row:
    """The chart as a Plotly figure; colours are `var(--name)`, which page.js fills in for light and dark."""
    traces = [_trace(series) for series in chart.series]
    axis: Row = {"automargin": True, "gridcolor": "var(--grid)", "zeroline": False, "linecolor": "var(--edge)"}
    layout: Row = {
        "xaxis": axis | {"title": {"text": label(chart.x_title), "standoff": 8}, "ticks": "outside", "nticks": 8},
        "yaxis": axis | {"title": {"text": label(chart.y_title), "standoff": 8}, "nticks": 7},
        "shapes": [_line(x) for x in chart.lines] + [_band(*band) for band in chart.bands],
    }
    if chart.logarithmic:
        layout["yaxis"] |= {"type": "log", "dtick": 1, "minor": {"showgrid": True, "gridcolor": "var(--grid)"}}
    elif all(y >= 0 for series in chart.series for y in series.ys):
        layout["yaxis"]["rangemode"] = "tozero" if chart.from_zero else "nonnegative"
    for name, ticks in (("xaxis", chart.x_ticks), ("yaxis", chart.y_ticks)):
        if ticks:
            layout[name] |= {"type": "log", "tickvals": list(ticks), "ticktext": [f"{tick:,.0f}" for tick in ticks]}
    if chart.field:
        # Points of a plane are pointed at one by one, those of a curve by their place on the x axis.
        layout |= {"hovermode": "closest"}
        for name, places in (("xaxis", chart.field.xs), ("yaxis", chart.field.ys)):
            layout[name] |= {"range": _span(places, layout[name].get("type") == "log"), "showgrid": False}
        traces.insert(0, field.trace(chart.field))
    if chart.epochs:
        layout["xaxis2"] = _top_axis(chart.epochs)
        traces.append({"x": [chart.epochs[0][0]], "y": [None], "xaxis": "x2", "hoverinfo": "skip", "mode": "lines"})
    return {"data": traces, "layout": layout}


def _trace(series: Series) -> Row:
    colour = f"var(--{series.colour})"
    trace: Row = {
        "type": "scatter",
        "name": label(series.name),
        "x": [_short(x, 9) for x in series.xs],
        "y": [_short(y, 5) for y in series.ys],
        "mode": {"points": "lines+markers", "mark": "markers"}.get(series.style, "lines"),
        "line": {"color": colour, "width": _WIDTH[series.style]},
    }
    if series.style == "faint":
        trace |= {"opacity": 0.4, "hoverinfo": "skip"}
    if series.style == "dashed":
        trace["line"]["dash"] = "dash"
    if series.style in ("points", "mark"):
        size = 15 if series.symbol == "star" else 8
        edge = {"color": "var(--card)", "width": 1}
        symbol = _PLOTLY_SYMBOL.get(series.symbol, series.symbol)
        trace["marker"] = {"color": colour, "symbol": symbol, "size": size, "line": edge}
    if series.style == "area":
        trace |= {"stackgroup": "one", "fillcolor": colour}
        trace["line"]["shape"] = "hv"
        if series.pattern:
            strokes = {"shape": series.pattern, "size": 7, "solidity": 0.25, "fillmode": "replace"}
            trace["fillpattern"] = strokes | {"bgcolor": colour, "fgcolor": "var(--card)"}
    if series.notes:
        trace |= {"hovertext": [label(note) for note in series.notes], "hoverinfo": "text"}
    return trace


def _span(places: Sequence[float], logarithmic: bool) -> list[float]:
    ends = (min(places), max(places))
    return [math.log10(end) for end in ends] if logarithmic else list(ends)


def _line(x: float) -> Row:
    stroke = {"color": "var(--ink)", "width": 1.5, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": stroke}


def _band(start: float, end: float) -> Row:
    box = {"type": "rect", "x0": _short(start, 9), "x1": _short(end, 9), "y0": 0, "y1": 1, "yref": "paper"}
    return box | {"fillcolor": "var(--band)", "line": {"width": 0}, "layer": "below"}


def _top_axis(ticks: Sequence[tuple[float, str]]) -> Row:
    return {
        "overlaying": "x",
        "matches": "x",
        "side": "top",
        "title": {"text": "finished epochs (passes over the data)", "standoff": 6},
        "tickvals": [x for x, _ in ticks],
        "ticktext": [label(text) for _, text in ticks],
        "ticks": "outside",
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
    }


def label(text: str) -> str:
    """Text for Plotly, which reads a few HTML tags in its labels: here they stay text."""
    return str(escape(text))


def _short(value: float, figures: int) -> float:
    rounded = float(f"{value:.{figures}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


# The legend is HTML: it wraps, prints, and is there without JavaScript


def legend(chart: Chart) -> Html:
    """Names beside a sample of each curve's stroke or symbol."""
    items = [(_sample(series), series.name) for series in chart.series]
    if chart.field:
        bands = [(_svg(_box(f"var(--{colour})")), words) for colour, words in field.BANDS]
        items = [*items, *bands]
    if chart.lines:
        items.append(
            (_svg('<path d="M14 0V14" style="stroke:var(--ink);stroke-width:2;stroke-dasharray:2 2"/>'), RESTARTS)
        )
    if chart.bands:
        items.append((_svg(_box("var(--band)")), PAUSES))
    return tag("ul", *(tag("li", sample, " ", name) for sample, name in items), class_="legend")


_SYMBOLS: dict[Symbol, str] = {
    "circle": "M18 7A4 4 0 1 1 10 7A4 4 0 1 1 18 7Z",
    "star": "M14 0L16 5H21L17 8L18.5 13L14 10L9.5 13L11 8L7 5H12Z",
    "diamond": "M14 2L19 7L14 12L9 7Z",
    "square": "M10 3H18V11H10Z",
    "cross": "M9 4L11 2L14 5L17 2L19 4L16 7L19 10L17 12L14 9L11 12L9 10L12 7Z",
}


def _sample(series: Series) -> Html:
    colour = f"var(--{series.colour})"
    if series.style == "area":
        return _svg(_box(colour) + _STROKES[series.pattern])
    stroke = f"stroke:{colour};stroke-width:{max(1.0, _WIDTH[series.style])}"
    extra = {"faint": ";opacity:.5", "dashed": ";stroke-dasharray:6 4"}.get(series.style, "")
    line = "" if series.style == "mark" else f'<path d="M0 7H28" style="{stroke}{extra}"/>'
    marked = series.style in ("points", "mark")
    mark = f'<path d="{_SYMBOLS[series.symbol]}" style="fill:{colour}"/>' if marked else ""
    return _svg(line + mark)


_STROKES: dict[Pattern, str] = {
    "": "",
    "/": '<path d="M2 14L12 0M10 14L20 0M18 14L28 0" style="stroke:var(--card);stroke-width:1.5"/>',
    ".": '<path d="M5 4h2M13 4h2M21 4h2M5 10h2M13 10h2M21 10h2" style="stroke:var(--card);stroke-width:2"/>',
}


def _box(colour: str) -> str:
    return f'<rect width="28" height="14" style="fill:{colour};stroke:var(--edge)"/>'


def _svg(inner: str) -> Html:
    return Html(f'<svg width="28" height="14" viewBox="0 0 28 14" aria-hidden="true">{inner}</svg>')
