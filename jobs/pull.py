"""Copies a run directory to a folder of this machine, whole or not at all: from storage, or as a tar stream."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from infra.files import explained
from infra.keys import TEMP_PREFIX, key_problem
from infra.storage import is_local
from jobs.admission import CHECKPOINT, newest_checkpoint
from jobs.errors import NameInUseError, NotFoundError, StorageError
from jobs.rundir import Entry, RunDir

#: What tells one run from another of the same name.
SPEC = "spec.json"


def chosen(
    keys: Sequence[str], best: str | None, last: str | None, *, everything: bool, only: Sequence[str] = ()
) -> list[str]:
    """Which keys below a run are copied: of its checkpoints the best and the last, unless `everything`. Pure."""
    wanted = tuple(f"{one}/" for one in (best, last) if one)
    return [
        key
        for key in keys
        if (not only or key.startswith(tuple(only)))
        and (everything or not key.startswith("checkpoints/") or key.startswith(wanted or "\0"))
    ]


def to_copy(run: RunDir, *, everything: bool, only: Sequence[str] = ()) -> list[Entry]:
    """What is copied of a run, by key; NotFoundError if nothing is there."""
    prefix = run.key("")
    entries = {entry.key.removeprefix(prefix): entry for entry in run.store.list(prefix)}
    result = run.result()
    # The best of a run that goes on is not written down; the newest of those kept is the last.
    best = result.best_checkpoint if result else None
    keys = chosen(sorted(entries), best, newest_checkpoint(run), everything=everything, only=only)
    if not keys:
        which = f" at {' or '.join(only)}" if only else ""
        raise NotFoundError(f"there is nothing{which} to copy in {run.uri}")
    return [entries[key] for key in keys]


def pull(run: RunDir, folder: str, *, everything: bool = False, only: Sequence[str] = ()) -> Path:
    """Copy a run from its storage to FOLDER/NAME; the folder."""
    with arriving(folder, run.name, whole=not only) as temp:
        if is_local(run.store.uri) and Path(run.uri.removeprefix("file://")).resolve() == _target(folder, run.name):
            raise StorageError(f"run {run.name} is in {run.uri} already; give --to another folder")
        for entry in to_copy(run, everything=everything, only=only):
            key = entry.key.removeprefix(run.key(""))
            try:
                run.store.get_file(entry.key, temp / key)
            except NotFoundError:
                # Retention has removed a checkpoint of a run that goes on: then all of it is left out.
                if not key.startswith("checkpoints/"):
                    raise
                shutil.rmtree(temp / "/".join(key.split("/")[:2]), ignore_errors=True)
        _drop_torn(temp)
    return _target(folder, run.name)


def pull_tar(name: str, folder: str, send: Callable[[BinaryIO], None], *, only: Sequence[str] = ()) -> Path:
    """Unpack the tar of a run, which `send` writes to a file, to FOLDER/NAME; the folder.

    `send` runs in a thread of its own, and what it raises is raised here.
    """
    import threading

    failures: list[BaseException] = []
    with arriving(folder, name, whole=not only) as temp:
        reading, writing = os.pipe()

        def fill() -> None:
            try:
                with os.fdopen(writing, "wb") as file:
                    send(file)
            except BaseException as error:  # noqa: BLE001 - raised again by the one who waits for it
                failures.append(error)

        thread = threading.Thread(target=fill, name="pull", daemon=True)
        thread.start()
        try:
            with os.fdopen(reading, "rb") as file:
                _unpack(file, temp)
        except tarfile.TarError as error:
            thread.join()
            raise (failures[0] if failures else StorageError(f"run {name} did not come whole: {error}")) from error
        thread.join()
        if failures:
            raise failures[0]
    return _target(folder, name)


def write_tar(run: RunDir, file: BinaryIO, *, everything: bool = False, only: Sequence[str] = ()) -> None:
    """Write what `pull` copies as a tar stream."""
    with tarfile.open(fileobj=file, mode="w|") as tar, tempfile.TemporaryDirectory(prefix="highwater-pull-") as temp:
        for entry in to_copy(run, everything=everything, only=only):
            path = Path(temp, "object")
            try:
                run.store.get_file(entry.key, path)
            except NotFoundError:
                if "/checkpoints/" not in entry.key:
                    raise
                continue
            member = tarfile.TarInfo(entry.key.removeprefix(run.key("")))
            member.size, member.mtime = path.stat().st_size, int(entry.modified)
            with path.open("rb") as data:
                tar.addfile(member, data)
            path.unlink()


@contextmanager
def arriving(folder: str, name: str, *, whole: bool = True) -> Iterator[Path]:
    """A temporary folder that becomes FOLDER/NAME at the end, if the block ends without an error.

    What an earlier pull of the same run has there and this one has not, stays. NameInUseError if another run is there.
    """
    target = _target(folder, name)
    with explained("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temp = Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}{name}-", dir=target.parent))
    try:
        yield temp
        with explained("write", target):
            if target.exists():
                _refuse_other(target, temp, whole=whole)
                _keep(target, temp)
            os.chmod(temp, 0o755)
            _swap(temp, target)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _target(folder: str, name: str) -> Path:
    return Path(folder).expanduser().resolve() / name


def _refuse_other(target: Path, temp: Path, *, whole: bool) -> None:
    old, new = target / SPEC, temp / SPEC
    if not whole and not new.is_file():
        return
    if not target.is_dir() or not old.is_file() or not new.is_file() or old.read_bytes() != new.read_bytes():
        raise NameInUseError(f"{target} is there and is not this run; give --to another folder, or move it away")


def _keep(target: Path, temp: Path) -> None:
    """Give the new folder what only the old one has."""
    for path in target.rglob("*"):
        new = temp / path.relative_to(target)
        if path.is_file() and not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, new)


def _swap(temp: Path, target: Path) -> None:
    """Put the new folder in the place of the old one, which a killed pull leaves beside it at worst."""
    if not target.exists():
        os.rename(temp, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}old-", dir=target.parent))
    os.rename(target, aside / target.name)
    os.rename(temp, target)
    shutil.rmtree(aside, ignore_errors=True)


def _unpack(file: BinaryIO, temp: Path) -> None:
    """Plain files alone, and none outside: the sender is a pod, and what it holds is others' data."""
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            if key_problem(member.name) or not member.isfile():
                raise StorageError(f"the pod sent {member.name!r}, which is no part of a run; nothing was copied")
            source = tar.extractfile(member)
            path = temp / member.name
            with explained("write", path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as copy:
                    shutil.copyfileobj(source, copy) if source else None
    while file.read(1 << 16):
        pass  # The sender is not to find a closed pipe.
    _drop_torn(temp)


def _drop_torn(temp: Path) -> None:
    """Remove checkpoints that retention took away while they were copied: those that have no manifest."""
    for folder in (temp / "checkpoints").glob("*"):
        key = f"checkpoints/{folder.name}/manifest.json"
        if CHECKPOINT.fullmatch(key) and not (temp / key).is_file():
            shutil.rmtree(folder, ignore_errors=True)
