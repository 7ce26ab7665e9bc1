"""The map of batch x bptt: memory as a field, the limit, and every size that was run or is the best at its bptt."""

from __future__ import annotations

from jobs.report.field import Field
from jobs.report.fitrecord import Fit, Point, Probe
from jobs.report.fitwords import HEAD, chosen, everything, told
from jobs.report.panel import Chart, Series
from jobs.report.text import plural, share
from jobs.report.thin import evenly

CELLS = 40
"""Places along each side of the map; what lies between them is a straight line."""
MARGIN = 1.3
"""The map ends this factor beyond the outermost sizes."""


def plane(fit: Fit) -> Chart:
    """The map as a chart; without a solved surface only its marks."""
    tried = [probe for probe in fit.probes if probe.size.bptt]
    sizes = [fit.size, *(probe.size for probe in tried), *(point.size for point in fit.frontier)]
    xs = _between([size.bptt or 1 for size in sizes])
    ys = _between([size.batch for size in sizes])
    done = sum(not probe.soak for probe in tried)
    return Chart(
        "sizes",
        f"{plural(done, 'size')} had to be run to choose {fit.size}" if done else f"The sizes around {fit.size}",
        "Each place is a size: bptt to the right, batch upwards, both in doubling steps. "
        + ("The shade is the memory that training takes there, as solved from the probes. " if fit.surface else "")
        + "Point at a mark for its bytes and speed.",
        [*_edge(fit, xs[0], xs[-1], ys), *_marks(fit, tried)],
        "bptt (time steps)",
        "batch (rows on each worker)",
        x_ticks=doublings(xs),
        y_ticks=doublings(ys),
        field=_field(fit, xs, ys),
        head=HEAD,
        rows=everything(fit),
    )


def _between(values: list[int]) -> list[float]:
    """Whole numbers that grow by about the same factor, from a little below the least value to beyond the largest."""
    low, high = max(1.0, min(values) / MARGIN), max(values) * MARGIN
    grid = {float(round(low * (high / low) ** (i / (CELLS - 1)))) for i in range(CELLS)}
    return sorted(grid | {float(round(low)), float(round(high)) + 1})


def doublings(places: list[float]) -> list[float]:
    """Powers of two within the places, eight at most."""
    powers = [2.0**i for i in range(31) if places[0] <= 2.0**i <= places[-1]]
    return [powers[i] for i in evenly(len(powers), 8)] if len(powers) > 1 else [places[0], places[-1]]


def _field(fit: Fit, xs: list[float], ys: list[float]) -> Field | None:
    if fit.surface is None or not fit.limit:
        return None
    surface, limit = fit.surface, fit.limit
    shares = [[min(surface.highest(y, x) / limit, 1e6) for x in xs] for y in ys]
    return Field(xs, ys, shares, "batch %{y} x bptt %{x}: %{customdata} of the limit, as solved")


def _edge(fit: Fit, left: float, right: float, ys: list[float]) -> list[Series]:
    """The largest batch at each bptt below the limit less its reserve."""
    if fit.surface is None or not fit.usable:
        return []
    places = [left * (right / left) ** (i / 80) for i in range(81)]
    pairs = [(x, fit.surface.largest_batch(x, fit.usable)) for x in places]
    kept = [(x, y) for x, y in pairs if ys[0] <= y <= ys[-1]]
    name = f"the limit less its reserve of {share(fit.reserve)}" if fit.reserve else "the limit"
    notes = [f"{name}: batch {y:,.0f} at bptt {x:,.0f}" for x, y in kept]
    return [Series(name, [x for x, _ in kept], [y for _, y in kept], "dashed", "ink", notes=notes)] if kept else []


def _marks(fit: Fit, tried: list[Probe]) -> list[Series]:
    """What was run, what failed, the best batch at each bptt, and the choice."""
    good = [probe for probe in tried if not probe.failed and probe.finite]
    bad = [probe for probe in tried if probe.failed or not probe.finite]
    best = [point for point in fit.frontier if point.size.bptt and point.size != fit.size]
    series = [
        Series("best batch at its bptt", *_places(best), "mark", "ink", "diamond", notes=[told(p, fit) for p in best]),
        Series("run and measured", *_places(good), "mark", "blue", "circle", notes=[told(p, fit) for p in good]),
        Series("run and failed", *_places(bad), "mark", "orange", "cross", notes=[told(p, fit) for p in bad]),
        Series(f"chosen: {fit.size}", [fit.size.bptt or 1], [fit.size.batch], "mark", "green", "star",
               notes=[chosen(fit)]),
    ]  # fmt: skip
    return [one for one in series if one.xs]


def _places(marks: list[Probe] | list[Point]) -> tuple[list[float], list[float]]:
    return [float(mark.size.bptt or 1) for mark in marks], [float(mark.size.batch) for mark in marks]
