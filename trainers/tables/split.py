"""Which rows train a model, which measure it, and which are looked at once, at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import DataError
from jobs.spec_tabular import GroupSplit, RandomSplit, TimeSplit
from trainers.tables.columns import Rows, called, floats, is_number, is_time, known, texts, value_type

Strata = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Numbers of the rows of each part, ascending; no row is in two."""

    training: Rows
    validation: Rows
    test: Rows
    how: str
    """How they were held out, for a sentence: `the last 20 % by time_hour`."""


def split(table: pa.Table, how: TimeSplit | GroupSplit | RandomSplit, strata: Strata | None = None) -> Split:
    """The rows of each part; of each stratum (a class of the target) the same share where rows are drawn at random.

    A split by time cuts between two times: all rows of training are earlier than all of validation, and those than
    all of test. Raises DataError if a part would be empty, or the column cannot be split by.
    """
    match how:
        case TimeSplit():
            found = _by_time(table, how)
        case GroupSplit():
            found = _by_group(table, how)
        case RandomSplit():
            found = _at_random(len(table), how, strata)
    for part, wanted in (("training", True), ("validation", True), ("test", how.test_share > 0)):
        if wanted and len(getattr(found, part)) == 0:
            raise DataError(f"data.split leaves no rows for {part} ({len(table):,} in all); change its shares")
    return found


def _by_time(table: pa.Table, how: TimeSplit) -> Split:
    known(how.column, "data.split.column", table.column_names, "the table")
    kind = value_type(table.schema.field(how.column).type)
    if not (is_number(kind) or is_time(kind)):
        raise DataError(
            f"data.split.column names {how.column}, which holds {called(kind)}, not dates, times or numbers"
        )
    times = floats(table, how.column)
    _complete(int(np.isnan(times).sum()), how.column)
    ordered, held = np.sort(times), how.validation_share + how.test_share
    first = ordered[min(len(times) - 1, round(len(times) * (1 - held)))]
    second = ordered[min(len(times) - 1, round(len(times) * (1 - how.test_share)))] if how.test_share else np.inf
    training, validation, test = times < first, (times >= first) & (times < second), times >= second
    told = f"the last {held:.0%} by {how.column} held out"
    return Split(np.flatnonzero(training), np.flatnonzero(validation), np.flatnonzero(test), told)


def _by_group(table: pa.Table, how: GroupSplit) -> Split:
    known(how.column, "data.split.column", table.column_names, "the table")
    column = texts(table, how.column)
    _complete(column.null_count, how.column)
    encoded = pc.dictionary_encode(column).combine_chunks()
    groups = encoded.indices.to_numpy().astype(np.int64)
    # By name, so that the order of the rows does not change which groups are held out.
    names = np.argsort(np.asarray(encoded.dictionary.to_pylist(), dtype=object))
    sizes, of_group = np.bincount(groups), np.zeros(len(names), dtype=np.int64)
    shuffled = names[np.random.default_rng(how.seed).permutation(len(names))]
    taken = 0
    for group in shuffled:
        share = taken / len(groups)
        of_group[group] = 2 if share < how.test_share else 1 if share < how.test_share + how.validation_share else 0
        taken += int(sizes[group])
    training, validation, test = (np.flatnonzero(of_group[groups] == part) for part in range(3))
    held = int((of_group > 0).sum())
    return Split(training, validation, test, f"{held:,} of {len(names):,} groups by {how.column} held out")


def _at_random(rows: int, how: RandomSplit, strata: Strata | None) -> Split:
    drawn = np.random.default_rng(how.seed).permutation(rows)
    strata = np.zeros(rows, dtype=np.int64) if strata is None else strata
    parts: tuple[list[Rows], ...] = ([], [], [])
    for stratum in np.unique(strata):
        own = drawn[strata[drawn] == stratum]
        tested = round(len(own) * how.test_share)
        held = round(len(own) * (how.test_share + how.validation_share))
        for part, chosen in zip(parts, (own[held:], own[tested:held], own[:tested]), strict=True):
            part.append(chosen)
    training, validation, test = (np.sort(np.concatenate(part)) for part in parts)
    return Split(training, validation, test, f"{how.validation_share + how.test_share:.0%} held out at random")


def _complete(missing: int, column: str) -> None:
    if missing:
        raise DataError(f"column {column} has no value in {missing:,} rows, and data.split needs one in each; fill it")
