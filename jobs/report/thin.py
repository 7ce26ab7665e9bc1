"""Fewer points for the same picture: extremes are kept, trends are medians. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

Points = tuple[list[float], list[float]]

LIMIT = 2000
TREND_POINTS = 300
WINDOW_SAMPLES = 501


def present(xs: Sequence[float], ys: Sequence[float]) -> Points:
    """The points that are finite numbers."""
    finite = math.isfinite
    if finite(sum(xs)) and finite(sum(ys)):  # a sum is finite only if all of it is: no need to look at each
        return list(xs), list(ys)
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if finite(y) and finite(x)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def extremes(xs: Sequence[float], ys: Sequence[float], limit: int = LIMIT) -> Points:
    """At most `limit` of the finite points: the lowest and the highest of each bucket, in their order."""
    xs, ys = present(xs, ys)
    if len(xs) <= limit:
        return xs, ys
    size = math.ceil(len(xs) / (limit // 2))
    kept: list[int] = []
    for start in range(0, len(ys), size):
        bucket = ys[start : start + size]
        pair = {start + bucket.index(min(bucket)), start + bucket.index(max(bucket))}
        kept.extend(sorted(pair))
    return [xs[i] for i in kept], [ys[i] for i in kept]


def trend(xs: Sequence[float], ys: Sequence[float], points: int = TREND_POINTS) -> Points:
    """Running median at no more than `points` places; the window is a fiftieth of the curve, 5 points at least."""
    xs, ys = present(xs, ys)
    half = max(2, len(ys) // 100)
    stride = max(1, 2 * half // WINDOW_SAMPLES)
    places = evenly(len(ys), points)
    return [xs[i] for i in places], [_median(ys[max(0, i - half) : i + half + 1 : stride]) for i in places]


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` indexes of a list of `count`, evenly spaced, first and last among them."""
    if count <= wanted:
        return list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def at(xs: Sequence[float], ys: Sequence[float], x: float) -> float | None:
    """The y of the point nearest to x from the left, or the first; None where there are no points."""
    if not xs:
        return None
    return ys[max(0, min(bisect_left(xs, x), len(xs) - 1))]


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
