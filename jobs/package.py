"""The three import packages as one zip, the same bytes for the same files, to run on another machine."""

from __future__ import annotations

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

from jobs.errors import HighwaterError
from jobs.units import size

#: Import packages that a driver needs.
PACKAGES = ("infra", "jobs", "trainers")
#: The packages are source and small samples; more than this means that something does not belong there.
MAX_BYTES = 5 * 2**20


def build_package(folders: dict[str, Path] | None = None) -> bytes:
    """A zip of the packages as they are here: no byte code, no hidden files, fixed times and modes.

    A package may be a single file. All is fixed, so that equal code has an equal hash and is uploaded once.
    """
    folders = installed() if folders is None else folders
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(folders):
            if folders[name].is_file():
                _add(archive, f"{name}.py", folders[name])
                continue
            for path in _files(folders[name]):
                _add(archive, f"{name}/{path.relative_to(folders[name]).as_posix()}", path)
    data = buffer.getvalue()
    if len(data) > MAX_BYTES:
        where = ", ".join(str(folder) for folder in folders.values())
        raise HighwaterError(
            f"the code to send is {size(len(data))} and should be under {size(MAX_BYTES)}; "
            f"remove what does not belong into {where}"
        )
    return data


def installed() -> dict[str, Path]:
    """The folder of each package, found without importing it."""
    folders = {}
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise HighwaterError(f"the package {name} is not installed here as files; reinstall highwater")
        folders[name] = Path(next(iter(spec.submodule_search_locations)))
    return folders


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and _belongs(path.relative_to(folder)))


def _belongs(path: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    return not hidden and path.suffix not in (".pyc", ".pyo")


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    # 1980 is the earliest year a zip can say.
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o100644 << 16
    archive.writestr(info, path.read_bytes())
