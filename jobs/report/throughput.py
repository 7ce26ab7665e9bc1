"""How fast training ran, and what interrupted it."""

from __future__ import annotations

from array import array

from jobs.report.axes import active_time, clock_of, rates, sample
from jobs.report.panel import Chart, Panel, Series, missing
from jobs.report.text import duration, finite, number, share
from jobs.report.thin import extremes, present, trend
from jobs.report.view import RunView
from jobs.rundir import Row

TITLE = "Throughput"
BANDS = 80
"""Longest pauses that are drawn; thousands of them would be a grey wall, and slow."""


def panel(view: RunView) -> Panel:
    """Units per second over training time."""
    clock = active_time(view.steps)
    times, speeds = present(clock, rates(view.steps, clock))
    if len(times) < 2:
        return missing("throughput", TITLE, "There is no throughput yet: it needs at least three training steps.")
    return Panel("throughput", TITLE, charts=[_chart(view, clock, times, speeds)])


def _chart(view: RunView, clock: array[float], times: list[float], speeds: list[float]) -> Chart:
    scale, unit = _scale(clock[-1])
    axis = [time / scale for time in times]
    xs, ys = trend(axis, speeds)
    typical = sorted(ys)[len(ys) // 2]
    pauses = _pauses(view, clock)
    lost = sum(end - start for start, end in pauses)
    longest = sorted(pauses, key=lambda pause: pause[0] - pause[1])[:BANDS]
    return Chart(
        "speed",
        f"Training ran at about {number(float(f'{typical:.3g}'))} {view.unit} per second",
        f"Every step counts its {view.unit}; evaluations and checkpoints took {share(lost / clock[-1])} of "
        f"{duration(clock[-1])}, and the time between attempts is left out.",
        [
            Series("each step", *extremes(axis, speeds), "faint", "blue"),
            Series("running median", xs, ys, "trend", "blue"),
        ],
        f"training time ({unit})",
        f"{view.unit} per second",
        lines=[time / scale for time in _restarts(view, clock)],
        bands=[(start / scale, end / scale) for start, end in sorted(longest)],
        head=(f"Training time ({unit})", f"{view.unit} per second (median)"),
        rows=[(xs[i], float(f"{ys[i]:.4g}")) for i in sample(len(xs))],
    )


def _scale(seconds: float) -> tuple[float, str]:
    """Seconds per unit of the axis, and the unit."""
    return (3600, "hours") if seconds > 2 * 3600 else (60, "minutes") if seconds > 120 else (1, "seconds")


def _pauses(view: RunView, clock: array[float]) -> list[tuple[float, float]]:
    """Spans of training time that evaluations and checkpoints took; overlapping ones are one."""
    spans = sorted(span for row in (*view.evals, *view.checkpoints) if (span := _span(view, clock, row)))
    merged: list[tuple[float, float]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _span(view: RunView, clock: array[float], row: Row) -> tuple[float, float] | None:
    """A row is written when its work is done, so the pause lies before its time."""
    time, seconds = finite(row.get("time")), finite(row.get("seconds"))
    if time is None or not seconds or seconds <= 0:
        return None
    end = clock_of(view.steps, clock, time)
    if end is None or end - seconds >= clock[-1]:  # after the last step there is no training to pause
        return None
    return max(0.0, end - seconds), min(end, clock[-1])


def _restarts(view: RunView, clock: array[float]) -> list[float]:
    attempts = view.steps.attempt
    return [clock[i] for i in range(1, len(clock)) if attempts[i] != attempts[i - 1]]
