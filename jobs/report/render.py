"""A panel as HTML: its heading and text, and for each chart title, legend, place of the drawing, sentence and table."""

from __future__ import annotations

from jobs.report import field
from jobs.report.figure import WIDTH, figure
from jobs.report.panel import Chart, Panel, Pattern, Series, Symbol
from jobs.report.text import EMPTY, Html, fold, number, script_json, scroll, table, tag

RESTARTS = "run was restarted here"


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
    return tag(
        "figure",
        tag("h3", chart.title),
        legend(chart),
        tag("div", drawing, data, class_="chart"),
        tag("figcaption", chart.sentence),
        _numbers(chart),
        id=chart.key,
        class_="beside" if chart.plane else None,
    )


def _numbers(chart: Chart) -> Html:
    if not chart.rows:
        return EMPTY
    cells = ([_cell(c) for c in row] for row in chart.rows)
    grid = scroll(table(chart.head, cells, chart.title), f"Numbers: {chart.title}")
    return fold("Show the numbers", grid, opened=chart.plane is not None)  # beside a square there is room


def _cell(value: object) -> str:
    return value if isinstance(value, str) else number(value)


# The legend is HTML: it wraps, prints, and is there without JavaScript


def legend(chart: Chart) -> Html:
    """Names beside a sample of each curve's stroke or symbol."""
    items = list(dict.fromkeys((_sample(series), series.name) for series in chart.series))
    if chart.field:
        bands = [(_svg(_box(f"var(--{colour})")), words) for colour, words in field.BANDS]
        items = [*items, *bands]
    if chart.lines:
        items.append(
            (_svg('<path d="M14 0V14" style="stroke:var(--ink);stroke-width:2;stroke-dasharray:2 2"/>'), RESTARTS)
        )
    if chart.bands:
        items.append((_svg(_box("var(--band)")), chart.band))
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
    stroke = f"stroke:{colour};stroke-width:{max(1.0, WIDTH[series.style])}"
    extra = {"faint": ";opacity:.5", "dashed": ";stroke-dasharray:6 4"}.get(series.style, "")
    line = "" if series.style in ("mark", "dots") else f'<path d="M0 7H28" style="{stroke}{extra}"/>'
    marked = series.style in ("points", "mark", "dots")
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
