"""A table in, from every place and form that it may come in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from jobs.errors import DataError
from jobs.spec_tabular import TabularData

_FORMS = "a .csv or .parquet file, or a folder of them"
_ENDS = (".csv", ".parquet")


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
    for file, content in _files(name, endpoint):
        digest.update(b"" if file == name else f"{file}\0{len(content)}\0".encode())
        digest.update(content)
        tables.append(_table(file, content))
    if not tables:
        raise DataError(f"{name} has no {' or '.join(_ENDS)} files; data.source must be {_FORMS}")
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


def _files(name: str, endpoint: str | None) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file of a source, folders in the order of their names."""
    kind, _, rest = name.partition(":")
    if kind == "bundled":
        yield name, _content(_bundled(rest))
    elif kind == "cache":
        yield name, _content(_cached(rest))
    elif name.startswith("s3://"):
        yield from _s3_files(name, endpoint)
    else:
        yield from _local_files(name)


def _bundled(name: str) -> Path:
    folder = Path(__file__).parent.parent / "samples"
    names = sorted(path.stem for path in folder.glob("*.parquet"))
    if name not in names:
        raise DataError(f"there is no bundled table {name!r}; data.source can be bundled:{' or bundled:'.join(names)}")
    return folder / f"{name}.parquet"


def _cached(name: str) -> Path:
    from trainers import datasets

    path = datasets.cached(name)
    if not path.name.endswith(_ENDS):
        raise DataError(f"cache:{name} is no table but {path.name}; data.source can be cache:flights")
    return path


def _local_files(name: str) -> Iterator[tuple[str, bytes]]:
    try:
        path = Path(name).expanduser()
        is_folder = path.is_dir()
    except (RuntimeError, OSError) as error:
        raise DataError(f"data.source {name[:80]} is not a path that can be read ({error})") from error
    if is_folder:
        for file in sorted(path.iterdir()):
            if file.name.endswith(_ENDS):
                yield file.name, _content(file)
    else:
        yield name, _content(path)


def _s3_files(name: str, endpoint: str | None) -> Iterator[tuple[str, bytes]]:
    from infra.storage import open_store

    if name.endswith(_ENDS):
        folder, file = name.rsplit("/", 1)
        yield name, open_store(folder, endpoint).get(file)
        return
    store = open_store(name.rstrip("/"), endpoint)
    for entry in store.list(""):
        if entry.key.endswith(_ENDS) and "/" not in entry.key:
            yield entry.key, store.get(entry.key)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; data.source must be {_FORMS}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check data.source") from error


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
    raise DataError(f"{name} is of no known form; data.source must be {_FORMS}")


def _said(error: Exception) -> str:
    """What a library says, on one line."""
    return " ".join(str(error).split())[:200].rstrip(" .")
