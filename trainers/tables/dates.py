"""Dates and times as columns that a model can use."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import DataError
from trainers.tables.columns import called, is_time, plain

CONTINUOUS = ("year", "elapsed", "season_sin", "season_cos")
"""Parts that go on growing: as categories, later ones would never have been seen. And the day on the circle of the
year, on which December is near to January: a season that training has not seen lies between two that it has."""
CATEGORICAL = ("month", "day", "weekday", "hour")
DAY_S, YEAR_DAYS = 86_400.0, 365.25


def expanded(table: pa.Table, names: list[str]) -> pa.Table:
    """The table with the parts of each date behind its other columns: `NAME_year`, `NAME_month` and so on.

    `NAME_elapsed` is in days since 1970. Dates without a time of day have no hour. Raises DataError if a column
    holds no dates.
    """
    for name in names:
        column = plain(table.column(name))
        if not is_time(column.type):
            raise DataError(
                f"data.dates names {name}, which holds {called(column.type)}; write dates as 2013-01-31 or "
                "2013-01-31 17:00, or take it from data.dates"
            )
        for part, values in _parts(column).items():
            if f"{name}_{part}" in table.column_names:
                raise DataError(f"{name}_{part} is a column already, so {name} cannot be expanded; rename one of them")
            table = table.append_column(f"{name}_{part}", values)
    return table


def _parts(column: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    seconds = column.cast(pa.timestamp("us", getattr(column.type, "tz", None))).cast(pa.int64())
    parts = {
        "year": pc.year(column),
        "elapsed": pc.divide(seconds.cast(pa.float64()), 1e6 * DAY_S),
        "month": pc.month(column),
        "day": pc.day(column),
        "weekday": pc.day_of_week(column, count_from_zero=False),
    }
    angle = pc.multiply(pc.day_of_year(column).cast(pa.float64()), 2 * math.pi / YEAR_DAYS)
    parts |= {"season_sin": pc.sin(angle), "season_cos": pc.cos(angle)}
    return parts | ({"hour": pc.hour(column)} if pa.types.is_timestamp(column.type) else {})
