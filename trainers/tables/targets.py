"""The target: rows without one, its scale, its classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import DataError
from jobs.spec_tabular import Classification, Regression, TabularData
from trainers.tables.columns import Floats, called, floats, is_number, is_text, plain, texts, value_type

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scale:
    """What a network is asked for in place of a number: its logarithm or itself, in standard deviations."""

    mean: float
    std: float
    log: bool

    def to(self, targets: Floats) -> Floats:
        """Numbers as the network sees them."""
        return ((np.log(targets) if self.log else targets) - self.mean) / self.std


def with_target(table: pa.Table, data: TabularData) -> tuple[pa.Table, int]:
    """The rows that have a target, and how many have none.

    Raises DataError if those are more than the spec allows, or none is left.
    """
    column = plain(table.column(data.target))
    missing = pc.is_null(column, nan_is_null=True) if pa.types.is_floating(column.type) else pc.is_null(column)
    dropped = int(pc.sum(missing).as_py() or 0)
    if dropped == len(table):
        raise DataError(f"the target {data.target} has no value in any row; choose another data.target")
    if dropped > data.missing_target_max * len(table):
        raise DataError(
            f"the target {data.target} has no value in {dropped:,} of {len(table):,} rows, more than "
            f"{data.missing_target_max:.1%}; fill it, or raise data.missing_target_max to drop those rows"
        )
    return (table.filter(pc.invert(missing)) if dropped else table), dropped


def numbers(table: pa.Table, target: str, objective: Regression) -> Floats:
    """The target of each row. Raises DataError unless it is a number, and above 0 where its logarithm is wanted."""
    kind = value_type(table.schema.field(target).type)
    if not is_number(kind):
        raise DataError(f"the target {target} holds {called(kind)}, not numbers; set objective.kind to classification")
    found = floats(table, target)
    if objective.log_target and (found <= 0).any():
        raise DataError(
            f"the target {target} is {found.min():g} in a row, and only numbers above 0 have a logarithm; "
            "set objective.log_target to false"
        )
    return found


def scale(training: Floats, target: str, objective: Regression) -> Scale:
    """The scale that training targets have. Raises DataError if all of them are the same."""
    if training.min() == training.max():
        raise DataError(f"the target {target} is {training[0]:g} in all training rows; there is nothing to learn")
    seen = np.log(training) if objective.log_target else training
    return Scale(float(seen.mean()), float(seen.std()), objective.log_target)


def class_names(table: pa.Table, target: str) -> tuple[str, ...]:
    """All classes of the target, in order. Raises DataError if there is one only, or it is no target of classes."""
    kind = value_type(table.schema.field(target).type)
    cells = texts(table, target)
    names: list[str] = pc.unique(cells).to_pylist()
    if len(names) == 1:
        raise DataError(f"the target {target} has one class only ({names[0]}); there is nothing to tell apart")
    if not (is_text(kind) or is_number(kind)):
        raise DataError(f"the target {target} holds {called(kind)}, which are no classes; choose another data.target")
    if is_number(kind) and not all(float(name).is_integer() for name in names):
        raise DataError(f"the target {target} holds fractions, which are no classes; set objective.kind to regression")
    if len(names) > max(2, len(cells) // 2):
        raise DataError(
            f"the target {target} has {len(names):,} classes in {len(cells):,} rows, too few rows of each to learn from"
            "; choose another data.target, or set objective.kind to regression"
        )
    return tuple(sorted(names, key=(lambda name: (float(name), name)) if is_number(kind) else None))


def labels(table: pa.Table, target: str, names: tuple[str, ...]) -> Labels:
    """The number of each row's class."""
    found: Labels = pc.index_in(texts(table, target), value_set=pa.array(names)).to_numpy().astype(np.int64)
    return found


def check_classes(training: Labels, held_out: Labels, names: tuple[str, ...], objective: Classification) -> None:
    """Raise DataError unless training has several classes, and every one that is held out."""
    here, there = set(np.unique(training).tolist()), set(np.unique(held_out).tolist())
    if len(here) == 1:
        raise DataError(f"all training rows are of the class {names[here.pop()]}; split the rows in another way")
    if there - here:
        lost = ", ".join(names[label] for label in sorted(there - here)[:5])
        raise DataError(
            f"{len(there - here)} classes are in the rows that are held out and not in training ({lost}); "
            "split the rows at random, or take those rows out"
        )
    if objective.metric == "auc" and len(names) != 2:
        raise DataError(f"objective.metric auc is for two classes, and the target has {len(names)}; choose f1")
