"""A table in, from every place and form that it may come in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from jobs.errors import DataError
from jobs.spec_tabular import TabularData
from trainers.sources import Kind, files

_ENDS = (".csv", ".parquet")
_TABLES = Kind(
    noun="table", sample=".parquet", single=_ENDS, inside=_ENDS, forms="a .csv or .parquet file, or a folder of them"
)


@dataclass(frozen=True)
class Source:
    """A table that has rows, and what is known of it."""

    name: str
    table: pa.Table
    sha256: str | None
    """Of the bytes that were read; for a folder, of names and contents in order. None where code made the table."""
    late: tuple[str, ...] = ()
    """Columns that are known too late to predict with."""
    late_reason: str = ""


def read(data: TabularData, endpoint: str | None = None) -> Source:
    """The whole table that `data` names.

    Raises DataError (missing, not CSV or Parquet, no rows, one column name twice) or StorageError, each with one
    sentence; and whatever a factory raises.
    """
    source = _made(data) if data.factory else _read(str(data.source), endpoint)
    if len(source.table) == 0:
        raise DataError(f"{source.name} has no rows; there is nothing to learn from")
    twice = [name for name in source.table.column_names if source.table.column_names.count(name) > 1]
    if twice:
        raise DataError(f"{source.name} has several columns called {twice[0]}; give each its own name")
    return source


def _made(data: TabularData) -> Source:
    from trainers.factories import call

    name = str(data.factory)
    table = call(name, "data", data.options)
    if not isinstance(table, pa.Table):
        raise DataError(f"{name} returned a {type(table).__name__}; data.factory must return a pyarrow.Table")
    return Source(name, table, None)


def _read(name: str, endpoint: str | None) -> Source:
    digest, tables = hashlib.sha256(), list[pa.Table]()
    for file, content in files(name, _TABLES, endpoint):
        digest.update(b"" if file == name else f"{file}\0{len(content)}\0".encode())
        digest.update(content)
        tables.append(_table(file, content))
    if not tables:
        raise DataError(f"{name} has no {' or '.join(_ENDS)} files; data.source must be {_TABLES.forms}")
    try:
        table = pa.concat_tables(tables, promote_options="permissive") if len(tables) > 1 else tables[0]
    except pa.ArrowException as error:
        raise DataError(f"the files of {name} differ in their columns ({_said(error)}); make them alike") from error
    late, reason = _late(name)
    return Source(name, table, digest.hexdigest(), late, reason)


def _late(name: str) -> tuple[tuple[str, ...], str]:
    from trainers import flights

    named = name in ("bundled:flights", "cache:flights")
    return (flights.LATE, flights.LATE_REASON) if named else ((), "")


def _table(name: str, content: bytes) -> pa.Table:
    reader = pa.BufferReader(content)
    try:
        if name.endswith(".csv"):
            options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
            return pyarrow.csv.read_csv(reader, convert_options=options)
        if name.endswith(".parquet") or ":" in name:
            return pq.read_table(reader)
    except pa.ArrowException as error:
        form = "CSV file" if name.endswith(".csv") else "Parquet file"
        raise DataError(f"{name} is not a whole {form} ({_said(error)}); write it again") from error
    raise DataError(f"{name} is of no known form; data.source must be {_TABLES.forms}")


def _said(error: Exception) -> str:
    """What a library says, on one line."""
    return " ".join(str(error).split())[:200].rstrip(" .")
