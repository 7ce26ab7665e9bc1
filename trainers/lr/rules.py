"""Rules that read a learning rate off a sweep, side by side. Pure; each is a function of one sweep.

The figures that rank them are in `tests/bench/lr.py`. Every rule sees the same smoothed curve up to where the sweep
ended; what it was named by is in its docstring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from trainers.lr.curve import Sweep

SLIDE_APART, SLIDE_FLAT = 15, 0.005
"""Steps between the two slopes that `slide` compares, and the difference below which it calls them equal."""


def minimum_tenth(sweep: Sweep) -> float:
    """One order of magnitude below the lowest point: the rule that fast.ai taught first."""
    return sweep.rates[sweep.at] / 10


def minimum_quarter(sweep: Sweep) -> float:
    """A quarter of the rate of the lowest point: the least regret of the rules that cost nothing more."""
    return sweep.rates[sweep.at] / 4


def steepest(sweep: Sweep) -> float:
    """Where the loss falls fastest over the logarithm of the rate, before its lowest point (fastai's `steep`)."""
    slopes = _slopes(sweep)[: max(1, sweep.at)]
    return sweep.rates[min(range(len(slopes)), key=slopes.__getitem__)]


def valley(sweep: Sweep) -> float:
    """The middle of the longest falling stretch, a stretch being a subsequence (fastai's default; ESRI's arcgis.learn).

    The middle is that of the second third of it, as there.
    """
    start, end = _longest_fall(sweep.smooth)
    third = (end - start) / 3
    return sweep.rates[start + int(third) + int(third / 2)]


def slide(sweep: Sweep) -> float:
    """From the right, the last place whose slope differs from that some steps further (Novetta's; fastai's `slide`)."""
    slopes = _slopes(sweep)
    right = len(slopes) - 1
    found = max(0, right - SLIDE_APART)
    for left in range(right - SLIDE_APART, -1, -1):
        if abs(slopes[left + SLIDE_APART] - slopes[left]) <= SLIDE_FLAT:
            break
        found = left
    return sweep.rates[found]


RULES: dict[str, Callable[[Sweep], float]] = {
    "minimum/4": minimum_quarter,
    "minimum/10": minimum_tenth,
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
}


def _slopes(sweep: Sweep) -> list[float]:
    """Change of the smoothed loss per unit of the rate's logarithm, after each point but the last."""
    logs = [math.log(rate) for rate in sweep.rates]
    return [(b - a) / (y - x) for (a, b), (x, y) in zip(pairwise(sweep.smooth), pairwise(logs), strict=True)]


def _longest_fall(values: Sequence[float]) -> tuple[int, int]:
    """First and last place of the longest strictly falling subsequence; the earliest of several."""
    lengths, before = [1] * len(values), list(range(len(values)))
    for i in range(len(values)):
        for j in range(i):
            if values[j] > values[i] and lengths[j] + 1 > lengths[i]:
                lengths[i], before[i] = lengths[j] + 1, j
    end = max(range(len(values)), key=lambda i: (lengths[i], -i))
    start = end
    while before[start] != start:
        start = before[start]
    return start, end
