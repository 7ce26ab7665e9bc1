"""Which columns of a table a model reads, and as what: categories or numbers. Decided on training rows alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import DataError, SpecError
from jobs.spec_tabular import TabularData, TimeSplit
from trainers.tables import dates
from trainers.tables.columns import called, floats, is_number, is_text, known, plain, value_type
from trainers.tables.source import Source

TREND = 0.9
"""Correlation with the time that rows are split by from which on whole numbers go on growing: not categories."""


@dataclass
class Roles:
    """The columns of a model's input, in order, and what became of the others."""

    categorical: list[str] = field(default_factory=list)
    continuous: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Column to the reason, a few words."""
    inferred: bool = False
    """Whether the table decided over some columns, and not the spec."""


def check_names(source: Source, data: TabularData) -> None:
    """Raise DataError for a column that is not there, SpecError for one that is known too late to predict with."""
    names = source.table.column_names
    known(data.target, "data.target", names, source.name)
    for part in ("categorical", "continuous", "dates", "ignore"):
        of_dates = [f"{date}_{p}" for date in data.dates for p in (*dates.CONTINUOUS, *dates.CATEGORICAL)]
        for name in getattr(data, part) or []:
            known(name, f"data.{part}", names if part == "dates" else [*names, *of_dates], source.name)
            if part != "ignore" and name in source.late and not data.allow_late:
                raise SpecError(
                    f"data.{part} names {name}, which is {source.late_reason}: who predicts {data.target} before that "
                    "cannot use it; take it out, or set data.allow_late to true"
                )


def decide(training: pa.Table, data: TabularData, source: Source) -> Roles:
    """The roles of all columns, from the spec and, where it is silent, from the training rows.

    `training` has the parts of dates already. Raises DataError for a column that the spec names and that has no value,
    and if no column is left.
    """
    roles, times = Roles(), _times(data)
    for name in training.column_names:
        if name in (data.target, *data.dates):
            continue
        named = [*(data.categorical or []), *(data.continuous or [])]
        if name in data.ignore:
            roles.left_out[name] = "ignored"
        elif name in source.late and not data.allow_late:
            roles.left_out[name] = source.late_reason
        elif reason := _unusable(training, name):
            if reason == EMPTY and name in named:
                raise DataError(f"column {name} has no value in any training row; take it out of the spec")
            roles.left_out[name] = reason
        elif name in named:
            (roles.categorical if name in (data.categorical or []) else roles.continuous).append(name)
        else:
            _infer(roles, training, name, data, times)
    if not roles.categorical and not roles.continuous:
        raise DataError(f"{source.name} has no column left to predict {data.target} from; name some in the spec")
    return roles


EMPTY, CONSTANT = "no value in any training row", "the same in all training rows"


def _unusable(training: pa.Table, name: str) -> str:
    """Why nothing can be learned from a column, or nothing."""
    column = plain(training.column(name))
    if column.null_count == len(column):
        return EMPTY
    if is_number(column.type):
        values = floats(training, name)
        if np.isnan(values).all():
            return EMPTY
        return CONSTANT if len(np.unique(values)) == 1 else ""
    try:
        return CONSTANT if pc.count_distinct(column, mode="all").as_py() == 1 else ""
    except pa.ArrowException:  # Values such as lists, which cannot be told apart.
        return ""


def _infer(roles: Roles, training: pa.Table, name: str, data: TabularData, times: str | None) -> None:
    kind = value_type(training.schema.field(name).type)
    part = next((name.removeprefix(f"{d}_") for d in data.dates if name.startswith(f"{d}_")), "")
    if part in dates.CATEGORICAL:
        roles.categorical.append(name)
    elif part in dates.CONTINUOUS:
        roles.continuous.append(name)
    elif is_text(kind) or (pa.types.is_integer(kind) and _few(training, name, data, times)):
        _place(roles, "categorical", name, data.categorical is None)
    elif is_number(kind):
        _place(roles, "continuous", name, data.continuous is None)
    else:
        hint = "; data.dates can use them" if called(kind) == "dates" else ""
        roles.left_out[name] = f"{called(kind)}{hint}"


def _place(roles: Roles, role: str, name: str, free: bool) -> None:
    if free:
        getattr(roles, role).append(name)
        roles.inferred = True
    else:
        roles.left_out[name] = "not named in the spec"


def _few(training: pa.Table, name: str, data: TabularData, times: str | None) -> bool:
    """Whether whole numbers are categories: few distinct ones, and none that grows as time goes on."""
    if name == "year" or name.endswith("_year") or name == times:
        return False
    if pc.count_distinct(plain(training.column(name))).as_py() > data.distinct_max:
        return False
    return times is None or abs(_correlation(training, name, times)) < TREND


def _times(data: TabularData) -> str | None:
    return data.split.column if isinstance(data.split, TimeSplit) else None


def _correlation(training: pa.Table, name: str, other: str) -> float:
    left, right = floats(training, name), floats(training, other)
    both = ~(np.isnan(left) | np.isnan(right))
    if both.sum() < 2 or left[both].std() == 0 or right[both].std() == 0:
        return 0.0
    return float(np.corrcoef(left[both], right[both])[0, 1])
