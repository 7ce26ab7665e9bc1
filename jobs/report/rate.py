"""The learning rate of each step."""

from __future__ import annotations

from jobs.report.axes import epoch_ticks, sample
from jobs.report.panel import Chart, Panel, Series, missing
from jobs.report.text import number
from jobs.report.thin import TREND_POINTS, evenly, extremes, present, trend
from jobs.report.view import RunView, section

TITLE = "Learning rate"
JITTER = 0.1
"""Steps this far from the median, as a share of the peak, are drawn apart if more than 1 % of the steps are."""


def panel(view: RunView) -> Panel:
    """The schedule as it ran."""
    steps, rates = present(view.steps.step, view.steps.rate)
    if not steps:
        return missing("rate", TITLE, "There is no learning rate yet: no training step has been recorded.")
    return Panel("rate", TITLE, charts=[_chart(view, steps, rates)])


def _chart(view: RunView, steps: list[float], rates: list[float]) -> Chart:
    series, xs, ys = _series(steps, rates)
    peak = max(ys)
    top, shown = xs[ys.index(peak)], float(f"{peak:.3g}")
    kind = section(view.spec, "schedule").get("kind")
    return Chart(
        "rates",
        f"The rate stayed at {number(shown)}"
        if min(ys) == peak
        else f"The rate peaked at {number(shown)} near step {number(top)} and stands at {number(ys[-1])}",
        "The learning rate is the size of the steps that the weights take"
        + (f"; its schedule is {kind}." if kind else "; a schedule makes it rise and fall."),
        series,
        "optimizer step",
        "learning rate (no unit)",
        epochs=epoch_ticks(view.steps),
        lines=view.restarts,
        head=("Step", "Learning rate"),
        rows=[(xs[i], ys[i]) for i in sample(len(xs))],
    )


def _series(steps: list[float], rates: list[float]) -> tuple[list[Series], list[float], list[float]]:
    """One clean line for a smooth schedule; raw and median where lengths of sequences scale the rate."""
    xs, ys = trend(steps, rates)
    places = evenly(len(rates), TREND_POINTS)
    allowed = JITTER * max(rates)
    apart = sum(abs(rates[i] - y) > allowed for i, y in zip(places, ys, strict=True))
    if apart <= len(ys) / 100:
        xs, ys = extremes(steps, rates)
        return [Series("learning rate", xs, ys, "trend", "blue")], xs, ys
    raw = Series("each step, scaled by its sequence length", *extremes(steps, rates), "faint", "blue")
    return [raw, Series("running median", xs, ys, "trend", "blue")], xs, ys
