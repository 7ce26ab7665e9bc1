"""Columns of numbers, filled and normalised with what training rows say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainers.tables.columns import floats

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Numeric:
    """One column's statistics over training rows."""

    column: str
    median: float
    """What a missing value is filled with."""
    mean: float
    std: float
    low: float
    high: float
    """What training saw; what lies beyond counts as the nearest of the two, as no network knows how to go on there."""
    indicator: bool
    """Whether a second column says where a value is missing: it does if one is in training."""

    @property
    def width(self) -> int:
        """Columns that it becomes."""
        return 1 + self.indicator

    def values(self, table: pa.Table) -> Values:
        """Normalised values of any rows, and 1 where one is missing: [rows, width]."""
        read = floats(table, self.column)
        missing = np.isnan(read)
        filled = np.where(missing, self.median, read).clip(self.low, self.high)
        normal = (filled - self.mean) / self.std
        columns = [normal, missing] if self.indicator else [normal]
        return np.stack(columns, axis=1).astype(np.float32)


def fitted(training: pa.Table, column: str) -> Numeric:
    """The statistics of a column that has at least one value in training.

    Where all values are the same, missing ones alone can tell anything, and the standard deviation counts as 1.
    """
    values = floats(training, column)
    missing = np.isnan(values)
    there = values[~missing]
    return Numeric(
        column=column,
        median=float(np.median(there)),
        mean=float(there.mean()),
        std=float(there.std()) or 1.0,
        low=float(there.min()),
        high=float(there.max()),
        indicator=bool(missing.any()),
    )
