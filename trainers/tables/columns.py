"""Single columns of an Arrow table as NumPy arrays, and what kind of column each is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import DataError
from jobs.spec_errors import nearest

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
"""Numbers of rows, ascending."""


def floats(table: pa.Table, name: str) -> Floats:
    """A column of numbers, dates or times as float64, NaN where it is missing; times are in seconds.

    Raises DataError with one sentence if it holds something else, or an infinite value.
    """
    column = plain(table.column(name))
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        column = column.cast(pa.timestamp("us", getattr(kind, "tz", None))).cast(pa.int64())
    elif not (is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise DataError(f"column {name} holds {called(kind)}, not numbers; list it under data.categorical")
    values: Floats = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64, copy=True)
    if np.isinf(values).any():
        raise DataError(
            f"column {name} has infinite values; leave those cells empty, or list the column under data.ignore"
        )
    return values / 1e6 if pa.types.is_temporal(kind) else values


def texts(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of categories as text, null where it is missing; a number that is not one (NaN) is missing.

    Raises DataError with one sentence if it holds lists or the like.
    """
    column = plain(table.column(name))
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(
            f"column {name} holds {called(column.type)}, which are no categories; list it under data.ignore"
        ) from error


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without dictionary encoding."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def value_type(kind: Any) -> Any:  # noqa: ANN401 - an Arrow type
    """The type of a column's values, dictionary encoding aside."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_number(kind: Any) -> bool:  # noqa: ANN401 - an Arrow type
    """Whether values of an Arrow type are numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_text(kind: Any) -> bool:  # noqa: ANN401 - an Arrow type
    """Whether values of an Arrow type are text or yes and no."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind))


def is_time(kind: Any) -> bool:  # noqa: ANN401 - an Arrow type
    """Whether values of an Arrow type are dates, or dates with a time."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def called(kind: Any) -> str:  # noqa: ANN401 - an Arrow type
    """What a person calls values of an Arrow type."""
    if is_number(kind):
        return "numbers"
    if is_time(kind):
        return "dates"
    return "yes and no" if pa.types.is_boolean(kind) else "text" if is_text(kind) else f"values of type {kind}"


def known(name: str, field: str, names: Iterable[str], of: str) -> None:
    """DataError, with the nearest name, unless a column that a field of the spec names is there."""
    names = list(names)
    if name not in names:
        meant = nearest(name, names)
        hint = f"did you mean {meant}?" if meant else f"it has {', '.join(names[:20])}{', ...' * (len(names) > 20)}"
        raise DataError(f"{field} names {name}, and {of} has no such column; {hint}")
