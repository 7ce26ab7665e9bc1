"""One size in words: at a mark of a chart, and as a row of the table of all sizes. Pure."""

from __future__ import annotations

from jobs.report.fitrecord import Fit, Point, Probe
from jobs.report.text import number, share
from jobs.units import size as amount

HEAD = ("Size", "What was done", "High-water mark", "Share of the limit", "Speed per worker", "Known", "Outcome")


def told(mark: Probe | Point, fit: Fit) -> str:
    """One mark in words: size, bytes, speed, and how it is known or how it ended."""
    count = mark.highest if isinstance(mark, Probe) else mark.bytes
    parts = [str(mark.size)]
    parts += [_memory(count, fit)] if count else []
    parts += [f"{number(rounded(mark.rate))} {fit.unit}/s"] if mark.rate else []
    parts += [_outcome(mark)] if isinstance(mark, Probe) else [mark.known, f"limited by {mark.limited_by}"]
    return _cut(", ".join(parts))


def chosen(fit: Fit) -> str:
    """The choice in words."""
    parts = [f"chosen: {fit.size}", _memory(fit.measured or fit.predicted, fit)]
    return ", ".join(parts + ([f"{number(rounded(fit.rate))} {fit.unit}/s"] if fit.rate else []))


def _memory(count: float | None, fit: Fit) -> str:
    of = fit.share(count)
    return "memory unknown" if count is None else amount(count) + ("" if of is None else f" ({share(of)} of the limit)")


def _cut(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def everything(fit: Fit) -> list[list[str]]:
    """All probes in the order in which they ran, then what was worked out without running it."""
    worked_out = [point for point in fit.frontier if point.known != "measured"]
    return [_probe_row(probe, fit) for probe in fit.probes] + [_point_row(point, fit) for point in worked_out]


def _probe_row(probe: Probe, fit: Fit) -> list[str]:
    done = "soaked, as training runs it" if probe.soak else "probed, a few steps"
    return [str(probe.size), done, *_figures(probe.highest, probe.rate, fit), "measured", _outcome(probe)]


def _point_row(point: Point, fit: Fit) -> list[str]:
    ending = f"best batch at its bptt, limited by {point.limited_by}"
    return [str(point.size), "worked out", *_figures(point.bytes, point.rate, fit), point.known, ending]


def _figures(count: float | None, rate: float | None, fit: Fit) -> tuple[str, str, str]:
    of = fit.share(count)
    speed = f"{number(rounded(rate))} {fit.unit}/s" if rate else "-"
    return amount(count) if count else "-", "-" if of is None else share(of), speed


def _outcome(probe: Probe) -> str:
    if probe.failed:
        return f"failed: {probe.failed}"
    if not probe.finite:
        return "the loss was not finite"
    return "passed" if not probe.retries else f"passed after the allocator tried again {number(probe.retries)} times"


def rounded(value: float) -> float:
    """Four figures: more would be noise."""
    return float(f"{value:.4g}")
