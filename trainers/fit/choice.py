"""Which point of the frontier is the highest, what decided it, and how to say so. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.units import quantity, size
from trainers.fit.sizes import Decided, Limits, Point


def highest(points: Sequence[Point], throughput: float) -> Point:
    """The point of the largest bptt whose rate reaches the share `throughput` of the top rate of all points."""
    top = max(point.rate for point in points)
    return max((p for p in points if p.rate >= throughput * top), key=lambda p: p.size.bptt or 0)


def decided(chosen: Point, bptt_by: Decided) -> Decided:
    """What kept batch x bptt from being larger: the batch's limit, or bptt's where the batch is the user's."""
    if "stability" in (chosen.limited_by, bptt_by):
        return "stability"
    return bptt_by if chosen.limited_by == "user" else chosen.limited_by


def bptt_limit(chosen: Point, points: Sequence[Point], limits: Limits, unstable: bool) -> Decided:
    """What kept bptt from being larger."""
    larger = [bptt for bptt in limits.bptts if (bptt or 0) > (chosen.size.bptt or 0)]
    if unstable:
        return "stability"
    if not larger:
        return "user"
    if any(point.size.bptt == larger[0] for point in points):
        return "speed"
    too_long = limits.cells_max is not None and (larger[0] or 1) * limits.batch_min > limits.cells_max
    return "data" if too_long else "memory"


def why(chosen: Point, bptt_by: Decided, points: Sequence[Point], limits: Limits, unit: str) -> str:
    """One or two sentences on the choice, for a person."""
    batch = _why_batch(chosen, limits)
    if len(limits.bptts) < 2:
        return batch[0].upper() + batch[1:] + "."
    return f"{_why_bptt(chosen, bptt_by, points, limits, unit)}; at it, {batch}."


def _why_bptt(chosen: Point, by: Decided, points: Sequence[Point], limits: Limits, unit: str) -> str:
    bptt = f"bptt {chosen.size.bptt}"
    top = max(point.rate for point in points)
    slower = "" if chosen.rate >= top else f" of {quantity(top)}"
    speed = f"{quantity(chosen.rate)}{slower} {unit}/s"
    if by == "speed" and chosen.rate >= top:
        return f"{bptt} is the fastest, and no larger one keeps {limits.throughput:.0%} of its speed ({speed})"
    if by == "speed":
        return f"{bptt} is the largest whose best batch keeps {limits.throughput:.0%} of the top speed ({speed})"
    if by == "stability":
        return f"{bptt} is the largest at which the loss stayed a finite number ({speed})"
    if by == "memory":
        return f"{bptt} is the largest that memory holds ({speed})"
    if by == "data":
        return f"{bptt} is the largest that leaves enough optimizer steps an epoch ({speed})"
    return f"{bptt} is the largest allowed, and its best batch is fast enough ({speed})"


def _why_batch(chosen: Point, limits: Limits) -> str:
    rows = f"batch {chosen.size.batch}"
    memory = f"{size(chosen.bytes)} of {size(limits.budget)}"
    if chosen.limited_by == "data":
        return f"{rows} is the largest that leaves enough optimizer steps an epoch, and the data decides ({memory})"
    if chosen.limited_by == "user":
        cap = "the given batch" if limits.batch_max == limits.batch_min else "the given cap"
        return f"{rows} is {cap} ({memory})"
    if chosen.limited_by == "stability":
        return f"{rows} is the largest at which the loss is hoped to stay a finite number ({memory})"
    return f"{rows} is the largest that the memory limit holds ({memory}, of which {limits.reserve:.0%} stay free)"
