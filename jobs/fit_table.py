"""Plans and fits as text for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    facts = record["facts"]
    measured = f", measured {size(facts['measured'])}" if facts.get("measured") else ""
    chosen = (
        f"{_size(facts)}, decided by {facts['decided_by']}\n{facts['why']}\n"
        f"predicted {size(facts['predicted'])}{measured}, "
        f"limit {size(facts['limit'])} ({facts['limit_source']}), {facts['reserve']:.0%} of it kept free"
    )
    return "\n\n".join(text for text in (chosen, _probes(facts), _frontier(facts)) if text)


def _probes(facts: dict[str, Any]) -> str:
    rows = [
        (
            probe["purpose"],
            _size(probe),
            "" if probe.get("failed") else size(_highest(probe)),
            "" if probe.get("failed") else _rate(probe, facts),
            probe.get("failed") or ("ok" if probe.get("finite", True) else "the loss is not finite"),
        )
        for probe in facts.get("probes", [])
    ]
    return columns([("RUN", "SIZE", "HIGHEST", "SPEED", "RESULT"), *rows], right=(2, 3)) if rows else ""


def _highest(probe: dict[str, Any]) -> float:
    return float(max(probe.get("peak", 0), probe.get("fixed", 0)) + probe.get("other", 0))


def _rate(probe: dict[str, Any], facts: dict[str, Any]) -> str:
    seconds = probe.get("seconds") or 0
    return f"{quantity(probe.get('units', 0) / seconds)} {facts['unit']}/s" if seconds else ""


def _frontier(facts: dict[str, Any]) -> str:
    points: Sequence[dict[str, Any]] = facts.get("frontier", [])
    if not points:
        return ""
    at = next((i for i, point in enumerate(points) if point["bptt"] == facts["bptt"]), 0)
    first = max(0, min(at - SHOWN // 2, len(points) - SHOWN))
    rows = [
        (
            _size(point) + (" <" if (point["batch"], point["bptt"]) == (facts["batch"], facts["bptt"]) else ""),
            size(point["bytes"]),
            f"{quantity(point['rate'])} {facts['unit']}/s" if point.get("rate") else "",
            point["known"],
            point["limited_by"],
        )
        for point in points[first : first + SHOWN]
    ]
    return columns([("FRONTIER", "HIGHEST", "SPEED", "KNOWN", "LIMITED BY"), *rows], right=(1, 2))
