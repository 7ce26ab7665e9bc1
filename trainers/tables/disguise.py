"""Columns that give the target away: most often they are the target in other words, or known only after it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainers.tables.columns import Floats

NEARLY = 0.999
"""Share of the target's variance, or of its classes, that no honest column explains alone."""
ROWS_EACH = 5
"""Rows that a category has on average at least: one row of each would explain anything."""
LOOKED_AT = 100_000
"""Rows that are looked at, evenly spread."""


def looked_at(rows: int) -> npt.NDArray[np.int64]:
    """The rows that are enough to tell."""
    return np.linspace(0, rows - 1, min(rows, LOOKED_AT)).astype(np.int64)


def number_tells_number(values: Floats, target: Floats) -> bool:
    """Whether one is nearly a rising or falling line of the other, or of its logarithm or the like."""
    there = ~np.isnan(values)
    if there.sum() < ROWS_EACH:
        return False
    pairs = [(values[there], target[there])]
    pairs += [(_ranks(values[there]), _ranks(target[there]))]
    return any(_correlation(left, right) ** 2 >= NEARLY for left, right in pairs)


def category_tells_number(codes: npt.NDArray[np.int64], target: Floats) -> bool:
    """Whether rows of one category nearly all have the same target: the correlation ratio."""
    return _enough(codes) and _explained(target, codes) >= NEARLY


def number_tells_class(values: Floats, labels: npt.NDArray[np.int64]) -> bool:
    """Whether rows of one class nearly all have the same value."""
    there = ~np.isnan(values)
    return int(there.sum()) >= ROWS_EACH and _explained(values[there], labels[there]) >= NEARLY


def category_tells_class(codes: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> bool:
    """Whether nearly every row is of the class that is most frequent in its category."""
    if not _enough(codes):
        return False
    pairs, counts = np.unique(np.stack([codes, labels]), axis=1, return_counts=True)
    most = np.zeros(pairs[0].max() + 1, dtype=np.int64)
    np.maximum.at(most, pairs[0], counts)
    frequent = np.bincount(labels).max()
    return bool(most.sum() >= NEARLY * len(codes) and frequent < NEARLY * len(labels))


def _enough(codes: npt.NDArray[np.int64]) -> bool:
    return len(codes) >= ROWS_EACH * len(np.unique(codes))


def _explained(values: Floats, groups: npt.NDArray[np.int64]) -> float:
    counts = np.maximum(np.bincount(groups), 1)
    means = np.bincount(groups, weights=values) / counts
    total = float(((values - values.mean()) ** 2).sum())
    return 1 - float(((values - means[groups]) ** 2).sum()) / total if total > 0 else 0.0


def _ranks(values: Floats) -> Floats:
    """Ranks, those of equal values their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = ((2 * ends - counts - 1) / 2)[inverse]
    return ranks


def _correlation(left: Floats, right: Floats) -> float:
    if left.std() == 0 or right.std() == 0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])
