"""Predictions of a number against what came true, and how far off they typically are."""

from __future__ import annotations

from itertools import pairwise

from jobs.report.panel import Chart, Panel, Plane, Series, Span
from jobs.report.reading import finite_rows, items, named
from jobs.report.text import number, plural, share
from jobs.report.view import RunView, section

TITLE = "Predicted against true"
MOST = 2000
STEEP = 100
"""Values of which the largest is this many times the smallest are drawn on logarithmic axes."""
GROUPS = 8
"""Rows of the table: as many groups of true values, each with as many rows."""
LEANING = 0.6
"""Share of the misses on one side from which on they lean to it."""
Pair = tuple[float, float]


def panel(view: RunView) -> Panel | None:
    """A cloud around the diagonal; nothing for runs whose model predicts no number."""
    document = section(view.examples, "predicted")
    true, predicted = (items(document.get(key), MOST) for key in ("true", "predicted"))
    pairs = [(row[0], row[1]) for row in finite_rows(true, predicted, most=MOST)]
    if len(pairs) < 2:
        return None
    return Panel("predicted", TITLE, charts=[_chart(named(document.get("target")), sorted(pairs), view.unit)])


def _chart(target: str, pairs: list[Pair], unit: str) -> Chart:
    true, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    logarithmic = min(*true, *predicted) > 0 and max(true) / min(true) > STEEP
    span = _span(true, predicted, logarithmic)
    outside = sum(not span[0] <= value <= span[1] for value in predicted)
    left_out = f" {plural(outside, 'prediction')} far outside are left out of the drawing." if outside else ""
    return Chart(
        "predictions",
        _finding(target, pairs),
        f"Each dot is one of {number(len(pairs))} held-out {unit}, as the model was at the end of training: the "
        "further from the dashed line, the further off; above it the prediction was too high. "
        f"{_lean(pairs)}{left_out}",
        [
            Series("one prediction", true, predicted, "dots", "blue"),
            Series("just right", list(span), list(span), "dashed", "orange"),
        ],
        f"true {target}",
        f"predicted {target}",
        logarithmic=logarithmic,
        plane=Plane(span, span),
        head=(f"True {target}", "Rows", "Typical prediction", "Half within", "9 in 10 within"),
        rows=_groups(pairs),
    )


def _finding(target: str, pairs: list[Pair]) -> str:
    """How far off typical predictions are: in the target's own unit, and as a share of what came true."""
    half, most = _within([abs(p - t) for t, p in pairs])
    of_half, of_most = "", ""
    if pairs[0][0] > 0:
        parts = _within([abs(p - t) / t for t, p in pairs])
        of_half, of_most = (f" ({share(part)})" for part in parts)
    return (
        f"Half of the predictions of {target} are within {_short(half)} of the truth{of_half}, "
        f"nine in ten within {_short(most)}{of_most}"
    )


def _lean(pairs: list[Pair]) -> str:
    """Whether the predictions are too high as often as too low."""
    high, low = sum(p > t for t, p in pairs), sum(p < t for t, p in pairs)
    side, most = ("high", high) if high > low else ("low", low)
    if most <= LEANING * (high + low):
        return "They are too high about as often as too low."
    return f"They lean to one side: {share(most / len(pairs))} of them are too {side}."


def _within(errors: list[float]) -> tuple[float, float]:
    """The error that half of them do not exceed, and nine in ten."""
    ordered = sorted(errors)
    return ordered[(len(ordered) - 1) // 2], ordered[(9 * len(ordered) - 1) // 10]


def _span(true: list[float], predicted: list[float], logarithmic: bool) -> Span:
    """All that is true or predicted and a little more; a few predictions that would make the rest tiny are left out."""
    ordered = sorted(predicted)
    (low, high), near = (
        (min(true[0], ordered[cut]), max(true[-1], ordered[-1 - cut])) for cut in (0, len(ordered) // 200)
    )
    if logarithmic:
        return low / 1.1, high * 1.1
    if high - low > 1.5 * (near[1] - near[0]):
        low, high = near
    margin = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def _groups(pairs: list[Pair]) -> list[tuple[str, ...]]:
    """Equally many rows in each, by their true value."""
    count = min(GROUPS, len(pairs))
    edges = [round(i * len(pairs) / count) for i in range(count + 1)]
    return [_group(pairs[a:b]) for a, b in pairwise(edges)]


def _group(pairs: list[Pair]) -> tuple[str, ...]:
    half, most = _within([abs(p - t) for t, p in pairs])
    typical = sorted(p for _, p in pairs)[(len(pairs) - 1) // 2]
    ends = f"{_short(pairs[0][0])} to {_short(pairs[-1][0])}"
    return ends, number(len(pairs)), _short(typical), _short(half), _short(most)


def _short(value: float) -> str:
    """Three figures: more would be noise."""
    return number(float(f"{value:.3g}"))
