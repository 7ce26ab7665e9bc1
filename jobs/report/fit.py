"""The largest size that fits: which batch and bptt were chosen, out of which, and what kept them from being larger."""

from __future__ import annotations

from jobs.report.fitrecord import MOST_BYTES, Fit, Probe, parse
from jobs.report.fitwords import HEAD, chosen, everything, rounded, told
from jobs.report.panel import Chart, Panel, Series, missing
from jobs.report.sizemap import doublings, plane
from jobs.report.text import Html, finite, join, number, share, tag
from jobs.report.view import RunView, section
from jobs.spec import AUTO
from jobs.units import size as amount

TITLE = "Largest size"
DECIDED = {
    "memory": "Memory decided",
    "speed": "Speed decided",
    "stability": "Stability decided",
    "data": "The data decided",
    "user": "The spec decided",
}


def panel(view: RunView) -> Panel:
    """What was chosen and why, the map of sizes, the speed, and every size that was looked at."""
    fit = parse(view.fit)
    if fit is None:
        return missing("fit", TITLE, _absent(view))
    chart = plane(fit) if len(fit.bptts) > 1 else _line(fit)
    speed = _speeds(fit, _throughput(view))
    charts = [one for one in (chart, speed) if one]
    return Panel("fit", TITLE, _words(fit), charts)


def _absent(view: RunView) -> str:
    """Why there is no search to show, and how to have one."""
    if view.fit:
        return "The record of the search cannot be read: it does not say which size was chosen."
    if AUTO in (view.spec.get("batch"), view.spec.get("bptt")):
        return "The largest size has not been found yet: the search has not finished."
    given = [f"{name} {number(view.spec[name])}" for name in ("batch", "bptt") if name in view.spec]
    if not given:
        return "No search for the largest size has been recorded."
    names = " and ".join(f"{name}: {AUTO}" for name in ("batch", "bptt") if name in view.spec)
    return f"The spec gave {' and '.join(given)}; with {names}, Highwater looks for the largest size that fits."


def _words(fit: Fit) -> Html:
    """The choice in plain words, and what the two numbers mean."""
    mark = fit.measured or fit.predicted
    held = ""
    if mark and fit.limit:
        known = "measured" if fit.measured else "predicted"
        held = f" At its highest it holds {amount(mark)} ({known}), {share(mark / fit.limit)} of the limit"
        source = " ".join(fit.limit_source.split())
        held += f" of {amount(fit.limit)} ({source})." if source else f" of {amount(fit.limit)}."
    why = fit.why.rstrip(".") or "the record does not say why"
    decided = DECIDED.get(fit.decided_by, f"What decided: {fit.decided_by}")
    lead = tag("p", f"The chosen size is {fit.size} on each worker.{held}", class_="lead")
    meaning = "Batch is how many rows a worker looks at in one go"
    meaning += (
        "; bptt is how many time steps (words, for text) it looks back in each of them. Larger numbers of both take "
        "more memory and mostly train faster."
        if fit.size.bptt
        else ". A larger one takes more memory and mostly trains faster."
    )
    return join((lead, tag("p", tag("b", f"{decided}:"), f" {why}."), tag("p", meaning)))


def _throughput(view: RunView) -> float:
    """Share of the best speed that the chosen bptt must reach."""
    return finite(section(view.spec, "fit").get("throughput")) or 0.95


# Without bptt, or with one: memory against batch


def _line(fit: Fit) -> Chart | None:
    good = [p for p in fit.probes if p.highest and not p.failed and p.finite]
    marks = [fit.limit, fit.predicted, fit.measured, *(p.highest for p in good)]
    scale, unit = scaled(max((mark or 0.0 for mark in marks), default=0.0))
    series = [*_lines(fit, scale), *_dots(fit, good, scale)]
    if not series:
        return None
    return Chart(
        "sizes",
        f"Memory grows with the batch; {fit.size.batch:,} is the largest that everything allows",
        "Each mark is a size that was run; the line is what they say of the sizes between.",
        series,
        "batch (rows on each worker)",
        f"high-water mark ({unit})",
        from_zero=True,
        head=HEAD,
        rows=everything(fit),
    )


def _lines(fit: Fit, scale: float) -> list[Series]:
    """The solved mark up to a little beyond the largest batch, and the limit."""
    series: list[Series] = []
    most = max(1.1 * max(fit.size.batch, *(p.size.batch for p in fit.probes), 0), 2.0)
    if fit.surface:
        xs = [1 + (most - 1) * i / 200 for i in range(201)]
        ys = [min(fit.surface.highest(x, fit.size.bptt), 2 * (fit.limit or MOST_BYTES)) / scale for x in xs]
        series.append(Series("solved from the probes", xs, ys, "trend", "blue"))
    if fit.limit:
        name = f"limit ({amount(fit.limit)})"
        series.append(Series(name, [1, most], [fit.limit / scale] * 2, "dashed", "orange"))
    return series


def _dots(fit: Fit, good: list[Probe], scale: float) -> list[Series]:
    """What was run, what failed, and the choice."""
    series: list[Series] = []
    bad = [probe for probe in fit.probes if probe.failed or not probe.finite]
    if good:
        xs, ys = [float(p.size.batch) for p in good], [(p.highest or 0.0) / scale for p in good]
        series.append(Series("run and measured", xs, ys, "mark", "blue", notes=[told(p, fit) for p in good]))
    if bad:
        # A probe without room needed more than the limit, however far it came.
        marks = [max(p.highest or 0.0, (fit.limit or 0.0) if p.failed else 0.0) / scale for p in bad]
        xs, notes = [float(p.size.batch) for p in bad], [told(p, fit) for p in bad]
        series.append(Series("run and failed", xs, marks, "mark", "orange", "cross", notes=notes))
    if mark := fit.measured or fit.predicted:
        place = [float(fit.size.batch)], [mark / scale]
        series.append(Series(f"chosen: {fit.size}", *place, "mark", "green", "star", notes=[chosen(fit)]))
    return series


def scaled(most: float) -> tuple[float, str]:
    """Bytes of the unit that suits an axis up to `most`, and its name."""
    return (2.0**30, "GiB") if most >= 8 * 2.0**30 else (2.0**20, "MiB") if most >= 2.0**20 else (2.0**10, "KiB")


# Speed


def _speeds(fit: Fit, throughput: float) -> Chart | None:
    points = sorted((p for p in fit.frontier if p.rate and p.size.bptt), key=lambda p: p.size.bptt or 0)
    if len(points) < 2:
        return None
    xs, ys = [float(p.size.bptt or 1) for p in points], [p.rate or 0.0 for p in points]
    top = max(ys)
    series = [
        Series("best batch at each bptt", xs, ys, "points", "blue", notes=[told(p, fit) for p in points]),
        Series(f"{share(throughput)} of the best", [xs[0], xs[-1]], [throughput * top] * 2, "dashed", "orange"),
    ]
    if fit.rate and fit.size.bptt:
        place = [float(fit.size.bptt)], [fit.rate]
        series.append(Series(f"chosen: {fit.size}", *place, "mark", "green", "star", notes=[chosen(fit)]))
    title = f"At bptt {xs[ys.index(top)]:,.0f} a worker is fastest: {number(rounded(top))} {fit.unit} per second"
    if fit.rate and fit.rate < top:
        title += f"; the chosen size reaches {share(fit.rate / top)} of that"
    return Chart(
        "speeds",
        title,
        "The largest bptt whose best batch stays above the dashed line is taken: a longer one would be too slow.",
        series,
        "bptt (time steps)",
        f"{fit.unit}/s on one worker",
        x_ticks=doublings(xs),
        head=("bptt", "Best batch", f"{fit.unit} per second", "Known"),
        rows=[(p.size.bptt, p.size.batch, rounded(p.rate or 0.0), p.known) for p in points],
    )
