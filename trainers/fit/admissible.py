"""What readings prove: the most memory that a size can need, and the largest size that cannot exceed a budget. Pure.

For static shapes the memory at any one moment of a step is a sum of terms with coefficients that are not negative:
1, B, T, B T and B T^2 for rows B and time steps T. At a size that was run, no moment held more than the measured
peak. The worst moment that agrees with every reading is therefore a small linear program, and its value is a bound
on the true peak, whichever moment that is. With one reading it is the rule `m(k B) - S <= k (m(B) - S)` (and k^2
for a factor in T); further readings at other rows and time steps tighten it. A line through two readings would not
be safe: the peak is convex, so such a line runs below it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainers.fit.sizes import Reading, Size
from trainers.fit.solve import Vector, terms

#: How many times the largest number of cells that was run a size may have, however little memory that took.
LEAP = 64


class Proof:
    """Bounds from the readings that got through (at least one)."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        # What does not grow is taken from the smallest values seen, so that what crept up counts as growth.
        self.base = min(r.persistent for r in readings) + min(r.other for r in readings)
        self.fixed = max(r.fixed for r in readings) + max(r.other for r in readings)
        """The high-water mark of phases that do not grow with the size."""
        grown = np.array([float(max(max(r.peak, r.persistent) + r.other - self.base, 1)) for r in readings])
        rows = np.stack([terms(r.size) for r in readings])
        self._scale = rows.max(axis=0)
        self._top = float(grown.max())
        self._rows = rows / self._scale
        self._right = grown / self._top
        self._most_cells = LEAP * max(r.size.cells for r in readings)

    def highest(self, size: Size) -> float:
        """The most bytes that the high-water mark of this size can be."""
        value, _ = self._worst(size.batch, size.bptt)
        return max(self.fixed, self.base + value)

    def largest_batch(self, bptt: int | None, budget: float, most: int | None = None) -> int:
        """The largest batch (at most `most`) whose mark is proven to be within the budget; 0 if none is."""
        room = budget - self.base
        if room <= 0 or self.fixed > budget:
            return 0
        cap = float(self._most_cells // (bptt or 1))
        batch = cap = cap if most is None else min(cap, most)
        # The bound is convex in the batch, so from above its tangents lead down to the answer and never past it.
        for _ in range(50):
            if batch < 1 - 1e-6:
                return 0
            value, moment = self._worst(batch, bptt)
            if value <= room * (1 + 1e-9):
                return int(batch + 1e-6)
            flat = float(terms(Size(0, bptt)) @ moment)
            if flat >= room:
                return 0
            batch *= (room - flat) / (value - flat)
        return 0

    def _worst(self, batch: float, bptt: int | None) -> tuple[float, Vector]:
        """Growth at the worst moment that agrees with all readings, in bytes, and its coefficients."""
        steps = bptt or 1
        wanted = np.array([1.0, batch, steps, batch * steps, batch * steps**2]) / self._scale
        moment = np.array(maximum(wanted.tolist(), self._rows.tolist(), self._right.tolist()))
        return float(wanted @ moment) * self._top, moment / self._scale * self._top


def maximum(goal: list[float], rows: list[list[float]], right: list[float]) -> list[float]:
    """The x >= 0 with `rows x <= right` for which `goal x` is largest; right >= 0. Bland's simplex (1977).

    Every column of `rows` needs an entry above 0, else there is no largest value. Plain lists: so small a table
    is several times faster than as arrays.
    """
    width, count = len(goal), len(rows)
    # One row per constraint and one for the goal; one column per variable that is 0, and the right side.
    table = [[*row, bound] for row, bound in zip(rows, right, strict=True)] + [[*(-g for g in goal), 0.0]]
    zero, basis = list(range(width)), list(range(width, width + count))
    for _ in range(200):
        column = min((j for j in range(width) if table[-1][j] < -1e-12), key=lambda j: zero[j], default=None)
        if column is None:
            break
        ratios = [(table[i][-1] / table[i][column], basis[i], i) for i in range(count) if table[i][column] > 1e-12]
        row = min(ratios)[2]
        _pivot(table, row, column)
        zero[column], basis[row] = basis[row], zero[column]
    found = [0.0] * width
    for i, variable in enumerate(basis):
        if variable < width:
            found[variable] = table[i][-1]
    return found


def _pivot(table: list[list[float]], row: int, column: int) -> None:
    """Exchange a row's variable with a column's."""
    pivot = table[row][column]
    lead = [value / pivot for value in table[row]]
    lead[column] = 1 / pivot
    for i, line in enumerate(table):
        factor = line[column]
        if i != row and factor:
            changed = [value - factor * top for value, top in zip(line, lead, strict=True)]
            changed[column] = -factor / pivot
            table[i] = changed
    table[row] = lead
