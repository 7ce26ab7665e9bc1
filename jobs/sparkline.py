"""A curve that stays small however long the run, and its picture in one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
ASCII_BARS = "_.-=+*#@"


class Curve:
    """Values over steps; holds at most `limit` points, of which each is the mean of as many steps.

    Steps must grow; after `cut(step)` they may go on from there.
    """

    def __init__(self, limit: int = 2048) -> None:
        self._limit = limit
        self._group = 1
        self._points: list[tuple[int, float, int]] = []

    def __len__(self) -> int:
        return len(self._points)

    def add(self, step: int, value: float) -> None:
        """Append one value; a value that is not finite leaves no mark."""
        if not math.isfinite(value):
            return
        if self._points and self._points[-1][2] < self._group:
            _, mean, count = self._points[-1]
            self._points[-1] = (step, mean + (value - mean) / (count + 1), count + 1)
            return
        if len(self._points) >= self._limit:
            self._halve()
        self._points.append((step, value, 1))

    def cut(self, step: int) -> None:
        """Forget all points that reach beyond a step."""
        while self._points and self._points[-1][0] > step:
            self._points.pop()

    @property
    def values(self) -> list[float]:
        """The points' values, oldest first."""
        return [mean for _, mean, _ in self._points]

    def _halve(self) -> None:
        pairs = zip(self._points[::2], self._points[1::2], strict=False)
        odd = self._points[-1:] if len(self._points) % 2 else []
        self._points = [_merge(left, right) for left, right in pairs] + odd
        self._group *= 2


def _merge(left: tuple[int, float, int], right: tuple[int, float, int]) -> tuple[int, float, int]:
    count = left[2] + right[2]
    return right[0], (left[1] * left[2] + right[1] * right[2]) / count, count


def sparkline(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """At most `width` characters whose heights follow the values; an empty string for no finite value.

    Each character stands for the mean of an equal share of the values.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite or width < 1:
        return ""
    count = min(width, len(finite))
    edges = [round(i * len(finite) / count) for i in range(count + 1)]
    means = [math.fsum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if not high > low:
        return bars[0] * count
    return "".join(bars[min(int((mean - low) / (high - low) * len(bars)), len(bars) - 1)] for mean in means)
