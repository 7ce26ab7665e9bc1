"""From readings to formulas: how memory and time grow with the size. Pure; non-negative least squares on numpy.

What is solved here only ranks sizes and says what to expect; what may be run is proven in `trainers.fit.admissible`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from trainers.fit.sizes import Reading, Size, Surface

Vector = NDArray[np.float64]

#: Weight of one point that an earlier estimate contributes, against 1 for a reading near the limit.
PRIOR_WEIGHT = 0.1
#: Worst relative error of a fit without a term in bptt squared above which that term is tried.
POOR = 0.03


def terms(size: Size) -> Vector:
    """1, B, T, B T and B T^2 of a size: every term that its memory is made of."""
    rows, steps = size.batch, size.bptt or 1
    return np.array([1.0, rows, steps, rows * steps, rows * steps**2])


def nonnegative(matrix: Vector, right: Vector) -> Vector:
    """The x >= 0 with the least |matrix x - right|, by Lawson and Hanson's active set (1974).

    Where many x are equally good it has few terms that are not 0, and prefers columns that explain more.
    """
    norms = np.linalg.norm(matrix, axis=0)
    columns = matrix / np.where(norms > 0, norms, 1.0)
    found = np.zeros(columns.shape[1])
    free = np.zeros(columns.shape[1], dtype=bool)
    enough = 1e-9 * float(np.linalg.norm(right))
    for _ in range(3 * columns.shape[1]):
        slope = columns.T @ (right - columns @ found)
        slope[free] = -np.inf
        best = int(np.argmax(slope))
        if slope[best] <= enough:
            break
        free[best] = True
        found = _within(columns, right, found, free)
    solved: Vector = found / np.where(norms > 0, norms, 1.0)
    return solved


def _within(columns: Vector, right: Vector, found: Vector, free: NDArray[np.bool_]) -> Vector:
    """Least squares over the free columns, on the way from `found`; columns that would turn negative are dropped."""
    while free.any():
        best = np.zeros(len(found))
        best[free] = np.linalg.lstsq(columns[:, free], right, rcond=None)[0]
        if (best[free] > 0).all():
            return best
        falling = free & (best <= 0)
        share = np.min(found[falling] / np.maximum(found[falling] - best[falling], 1e-300))
        found = found + share * (best - found)
        free &= ~(falling & (found <= 1e-12 * max(1.0, float(np.abs(found).max()))))
        found[~free] = 0.0
    return np.zeros(len(found))


def solve_surface(readings: Sequence[Reading], prior: Surface | None = None, square: bool | None = None) -> Surface:
    """The memory surface that the readings (at least one, none of them failed) lie on.

    Readings near the highest count most: the mark is piecewise linear, and the piece at the limit matters. One
    reading makes all growth proportional, unless a `prior` (preflight's estimate) gives the surface its shape: that
    is then scaled to the readings. `square` adds a term in bptt squared; None adds it where the readings demand it.
    """
    grown = np.array([float(max(r.peak - r.persistent, 1)) for r in readings])
    weights = (grown / grown.max()) ** 1.5
    matrix = np.stack([terms(r.size) for r in readings])
    if prior is not None:
        matrix, grown, weights = _with_prior(matrix, grown, weights, prior)
    wanted = square if square is not None else prior is not None and prior.square > 0
    found = _solved(matrix, grown, weights, wanted)
    several = len({r.size.bptt for r in readings}) >= 3
    if square is None and not wanted and several and _worst_error(matrix, grown, weights, found) > POOR:
        found = _solved(matrix, grown, weights, square=True)
    constant, row, step, cell, squared = (float(value) for value in found)
    return Surface(
        persistent=float(max(r.persistent for r in readings)),
        fixed=float(max(r.fixed for r in readings)),
        other=float(max(r.other for r in readings)),
        constant=constant,
        row=row,
        step=step,
        cell=cell,
        square=squared,
    )


def _solved(matrix: Vector, grown: Vector, weights: Vector, square: bool) -> Vector:
    """Coefficients of the terms; 0 for terms that are not asked for or that the readings cannot tell apart."""
    grows = 4 if square else 3
    if len(grown) == 1:
        use = [grows]
    elif (matrix[:, 2] == matrix[0, 2]).all():
        use = [0, grows]
    else:
        use = [0, 1, 2, 3, 4][: grows + 1]
    found = np.zeros(matrix.shape[1])
    found[use] = nonnegative(matrix[:, use] * weights[:, None], grown * weights)
    return found


def _worst_error(matrix: Vector, grown: Vector, weights: Vector, found: Vector) -> float:
    large = weights >= 0.5**1.5
    return float(np.max(np.abs(matrix[large] @ found / grown[large] - 1)))


def _with_prior(matrix: Vector, grown: Vector, weights: Vector, prior: Surface) -> tuple[Vector, Vector, Vector]:
    """The readings, and the corners of their neighbourhood as the prior has them once it is scaled to the readings."""
    shape = np.array([prior.constant, prior.row, prior.step, prior.cell, prior.square])
    expected = matrix @ shape
    if not (expected > 0).all():
        return matrix, grown, weights
    scale = float(np.sum(weights * grown) / np.sum(weights * expected))
    rows, steps = matrix[int(np.argmax(grown)), 1:3]
    lengths = (1.0,) if (matrix[:, 2] == 1).all() else (steps / 2, steps * 2)
    corners = [(rows * more, length) for more in (0.5, 2) for length in lengths]
    added = np.stack([np.array([1.0, b, t, b * t, b * t**2]) for b, t in corners])
    return (
        np.concatenate([matrix, added]),
        np.concatenate([grown, scale * (added @ shape)]),
        np.concatenate([weights, np.full(len(corners), PRIOR_WEIGHT)]),
    )


@dataclass(frozen=True)
class Clock:
    """Seconds of an optimizer step over sizes: start + step T + row B + cell B T, all of them >= 0."""

    start: float = 0.0
    row: float = 0.0
    step: float = 0.0
    cell: float = 0.0
    units: float = 0.0
    """Units (tokens, images, rows) in one cell of a usual step, which may be shorter than the largest."""

    def seconds(self, size: Size) -> float:
        """Seconds of one optimizer step."""
        return float(terms(size)[:4] @ np.array([self.start, self.row, self.step, self.cell]))

    def rate(self, size: Size) -> float:
        """Units per second of one worker; 0 if nothing was timed."""
        seconds = self.seconds(size)
        return self.units * size.cells / seconds if seconds > 0 else 0.0


def solve_clock(readings: Sequence[Reading]) -> Clock:
    """The time model of the readings that were timed. Relative errors count, as a share of the speed decides.

    One reading makes time proportional to the cells: every size is then as fast as another.
    """
    timed = [r for r in readings if r.seconds > 0 and r.units > 0 and not r.failed]
    if not timed:
        return Clock()
    units = median(r.units / r.size.cells for r in timed)
    seconds = np.array([r.seconds for r in timed])
    matrix = np.stack([terms(r.size)[:4] for r in timed])
    several = (matrix[:, 2] != matrix[0, 2]).any()
    use = [3] if len(timed) == 1 else [0, 1, 2, 3] if several else [0, 3]
    found = np.zeros(4)
    found[use] = nonnegative(matrix[:, use] / seconds[:, None], np.ones(len(timed)))
    start, row, step, cell = (float(value) for value in found)
    return Clock(start, row, step, cell, units)
