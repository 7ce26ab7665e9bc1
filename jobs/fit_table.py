"""Plans and fits as text for people. Pure."""

from __future__ import annotations

from typing import Any

from jobs.report.fitrecord import Fit, parse
from jobs.table import columns
from jobs.units import duration, quantity, size

BARS = 20
"""Characters of a part's bar at most."""
SHOWN = 12
"""Points of a frontier at most."""
LIMITED = {
    "memory": "memory",
    "data": "data (optimizer steps an epoch)",
    "user": "fit.batch_max",
    "speed": "speed",
    "stability": "stability",
}
"""What keeps a size from being larger, in words."""


def plan_text(plan: dict[str, Any]) -> str:
    """What `highwater plan` says: the spec's own memory by cause, the cards, and the run's time if that is known."""
    own = plan["own"]
    blocks = [_own(own), _parts(own), _cards(plan), _run(plan)]
    return "\n\n".join(block for block in blocks if block)


def _size(document: dict[str, Any]) -> str:
    bptt = document.get("bptt")
    return f"batch {document['batch']}" + (f" x bptt {bptt}" if bptt else "")


def _own(own: dict[str, Any]) -> str:
    where = "a GPU" if own["device"] == "gpu" else "the CPU"
    lines = [f"{_size(own['size'])} on {where}: about {size(own['bytes'])} at the highest moment of a step"]
    if own["limit"]:
        verdict = "fits" if own["fits"] else "does not fit"
        what = f"the spec's limit of {size(own['limit'])} ({size(own['usable'])} less the reserve)"
        lines.append(f"{_size(own['wanted'])} {verdict} {what}; the largest is {_largest(own)}")
        if own.get("change"):
            lines.append(f"it would fit with {own['change']}")
    return "\n".join(lines)


def _largest(room: dict[str, Any]) -> str:
    return f"{_size(room)}, limited by {LIMITED[room['limited_by']]}" if room["batch"] else "none"


def _parts(own: dict[str, Any]) -> str:
    parts = sorted(own["parts"].items(), key=lambda item: -item[1])
    total = sum(own["parts"].values()) or 1
    return columns(
        [(name, size(count), f"{count / total:4.0%}", "#" * round(BARS * count / total)) for name, count in parts],
        right=(1, 2),
    )


def _cards(plan: dict[str, Any]) -> str:
    priced = any(card["price_per_hour"] is not None for card in plan["cards"])
    cost = ("PRICE/H", "COST") if priced else ()
    head = ("CARD", "MEMORY", "FITS", "LARGEST", "LIMITED BY", *cost, "TO FIT")
    rows = [_card(card, priced) for card in plan["cards"]]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    wanted = _size(plan["cards"][0]["wanted"])
    auto = "; bptt is auto: fit picks it by speed" if plan["bptt"] == "auto" else ""
    note = f"FITS: {wanted}. LARGEST: with batch auto, less the reserve{auto}."
    return columns([head, *rows], right=(1,)) + "\n" + note


def _card(card: dict[str, Any], priced: bool) -> tuple[str, ...]:
    fits = "yes" if card["fits"] else "no"
    largest = _size(card) if card["batch"] else "-"
    cells = [card["name"], size(card["memory"]), fits, largest, card["limited_by"]]
    if priced:
        price, cost = card["price_per_hour"], card.get("cost")
        cells += ["" if price is None else f"{price:.2f}", "" if cost is None else f"{cost:.2f}"]
    change = card.get("change")
    return (*cells, "" if card["fits"] else change or "no single change")


def _run(plan: dict[str, Any]) -> str:
    run = plan["run"]
    if run["units_per_second"] is None:
        return ""
    if run["seconds"] is None:
        return "the time of a run of so many steps is not known while batch or bptt is auto"
    rate = f"{quantity(run['units_per_second'])} {plan['unit']}/s"
    return f"a run of {quantity(run['units'])} {plan['unit']} takes {duration(run['seconds'])} at {rate}"


def fit_text(record: dict[str, Any]) -> str:
    """What `highwater fit` ends with: the choice, why, the probes and the frontier."""
    found = parse(record)
    if found is None:
        return str(record.get("message") or "the record does not say which size was found")
    measured = f", measured {size(found.measured)}" if found.measured else ""
    chosen = (
        f"{found.size}, decided by {found.decided_by}\n{found.why}\n"
        f"predicted {size(found.predicted or 0)}{measured}, "
        f"limit {size(found.limit or 0)} ({found.limit_source}), {found.reserve:.0%} of it kept free"
    )
    return "\n\n".join(text for text in (chosen, _probes(found), _frontier(found)) if text)


def _probes(found: Fit) -> str:
    rows = [
        (
            "soak" if probe.soak else "probe",
            str(probe.size),
            size(probe.highest) if probe.highest and not probe.failed else "",
            "" if probe.failed else _speed(probe.rate, found.unit),
            probe.failed or ("ok" if probe.finite else "the loss is not finite"),
        )
        for probe in found.probes
    ]
    return columns([("RUN", "SIZE", "HIGHEST", "SPEED", "RESULT"), *rows], right=(2, 3)) if rows else ""


def _speed(rate: float | None, unit: str) -> str:
    return f"{quantity(rate)} {unit}/s" if rate else ""


def _frontier(found: Fit) -> str:
    points = found.frontier
    if not points:
        return ""
    at = next((i for i, point in enumerate(points) if point.size.bptt == found.size.bptt), 0)
    first = max(0, min(at - SHOWN // 2, len(points) - SHOWN))
    rows = [
        (
            f"{point.size}{' <' if point.size == found.size else ''}",
            size(point.bytes or 0),
            _speed(point.rate, found.unit),
            point.known,
            point.limited_by,
        )
        for point in points[first : first + SHOWN]
    ]
    return columns([("FRONTIER", "HIGHEST", "SPEED", "KNOWN", "LIMITED BY"), *rows], right=(1, 2))
