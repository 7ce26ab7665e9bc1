"""A quantity over a plane as bands of colour, for a chart's background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.rundir import Row

EDGE = 0.25
#: Bands from below: name of the colour in page.css, and what it says. Each is `EDGE` wide, the last has no end.
BANDS = (
    ("h1", "below 25 %"),
    ("h2", "25 to 50 %"),
    ("h3", "50 to 75 %"),
    ("h4", "75 to 100 %"),
    ("h5", "beyond the limit"),
)


@dataclass(frozen=True)
class Field:
    """Shares of a limit on a grid, all finite: one row of `shares` for each of `ys`, a number for each of `xs`."""

    xs: Sequence[float]
    ys: Sequence[float]
    shares: Sequence[Sequence[float]]
    hover: str
    """What pointing at a place says, in Plotly's words: %{x}, %{y} and %{customdata}, the share. No text of a run."""


def trace(field: Field) -> Row:
    """The field as Plotly draws it: filled contours at the edges of the bands."""
    last = len(BANDS) - 1
    return {
        "type": "contour",
        "x": list(field.xs),
        "y": list(field.ys),
        # A band beyond the last one would get a colour between two: what is far above counts as just above.
        "z": [[round(min(share, EDGE * (last + 0.9)), 4) for share in row] for row in field.shares],
        "customdata": [[_percent(share) for share in row] for row in field.shares],
        "autocontour": False,
        "contours": {"coloring": "fill", "start": EDGE, "end": EDGE * last, "size": EDGE, "showlines": False},
        "colorscale": [[index / last, f"var(--{colour})"] for index, (colour, _) in enumerate(BANDS)],
        "line": {"width": 0},
        "showscale": False,
        "hovertemplate": f"{field.hover}<extra></extra>",
    }


def _percent(share: float) -> str:
    return f"{100 * min(share, 99):,.0f} %"
