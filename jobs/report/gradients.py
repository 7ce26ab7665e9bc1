"""How large the gradients were, and whether they were clipped."""

from __future__ import annotations

from jobs.report.axes import epoch_ticks, sample
from jobs.report.curves import steep
from jobs.report.panel import Chart, Panel, Series, missing
from jobs.report.text import finite, number, share
from jobs.report.thin import extremes, present, trend
from jobs.report.view import RunView

TITLE = "Gradients"


def panel(view: RunView) -> Panel:
    """The gradient norm before clipping, beside the limit."""
    steps, norms = present(view.steps.step, view.steps.grad_norm)
    if not steps:
        return missing("gradients", TITLE, "No gradient norms have been recorded.")
    return Panel("gradients", TITLE, charts=[_chart(view, steps, norms)])


def _chart(view: RunView, steps: list[float], norms: list[float]) -> Chart:
    xs, ys = trend(steps, norms)
    clip = finite(view.spec.get("clip_norm"))
    raw = Series("each step", *extremes(steps, norms), "faint", "blue")
    series = [raw, Series("running median", xs, ys, "trend", "blue")]
    if clip is not None:
        ends = [steps[0], steps[-1]]
        series.append(Series(f"clip limit ({number(clip)})", ends, [clip, clip], "dashed", "orange"))
    return Chart(
        "norms",
        _finding(norms, clip),
        "The norm of the gradient says how strongly a step pulls at the weights; sudden peaks mean unstable training"
        + (", and what is above the dashed line was scaled down to it." if clip is not None else "."),
        series,
        "optimizer step",
        "gradient norm (L2, no unit)",
        epochs=epoch_ticks(view.steps),
        lines=view.restarts,
        logarithmic=steep([y for line in series for y in line.ys]),
        head=("Step", "Gradient norm (median)"),
        rows=[(xs[i], ys[i]) for i in sample(len(xs))],
    )


def _finding(norms: list[float], clip: float | None) -> str:
    if clip is None:
        return f"The largest gradient norm was {number(max(norms))}; gradients were not clipped"
    clipped = sum(norm > clip for norm in norms)
    if not clipped:
        return f"No gradient reached the clip limit of {number(clip)}"
    return f"{share(clipped / len(norms))} of the steps were clipped to a gradient norm of {number(clip)}"
