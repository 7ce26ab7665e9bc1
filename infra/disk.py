"""Objects as files below a folder, on a local disk or on NFS."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.files import MIB, explain, explained, replacing
from infra.keys import TEMP_PREFIX, check_key, check_prefix, key_problem
from jobs.errors import ExistsError, NotFoundError, StorageError
from jobs.rundir import Entry

#: A file being written changes at least this often; an older one was left by a killed writer.
LEFTOVER_S = 3600.0


@dataclass(frozen=True)
class DiskStore:
    """An `ObjectStore` over a folder, which is created on the first write.

    A put writes a temporary file in the object's folder, syncs it, renames it and syncs the folder.
    """

    root: Path
    """Absolute."""

    @property
    def uri(self) -> str:
        """The folder."""
        return str(self.root)

    @property
    def flush_s(self) -> float:
        """Half a second: a local write costs about a millisecond."""
        return 0.5

    def get(self, key: str) -> bytes:
        """The file's bytes."""
        path = self._path(key)
        try:
            return path.read_bytes()
        except OSError as error:
            raise self._unreadable(error, path) from error

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Create or replace the file; with `if_absent`, exactly one of many writers wins."""
        path = self._path(key)
        try:
            with replacing(path, exclusive=if_absent) as file:
                file.write(data)
        except FileExistsError as error:
            raise self._conflict(error, path, if_absent) from error
        except OSError as error:
            if if_absent and error.errno in (errno.EPERM, errno.ENOTSUP) and os.access(path.parent, os.W_OK):
                raise StorageError(
                    f"{self.root} is on a file system without hard links, which an exclusive write needs; "
                    "choose another --storage"
                ) from error
            raise explain(error, "write", path) from error

    def get_file(self, key: str, path: Path) -> None:
        """Copy the file; `path` is replaced atomically."""
        source = self._path(key)
        try:
            file = source.open("rb")
        except OSError as error:
            raise self._unreadable(error, source) from error
        with file, explained("write", path), replacing(path) as target:
            shutil.copyfileobj(file, target, MIB)

    def put_file(self, key: str, path: Path) -> None:
        """Create or replace the file from another one, which is copied."""
        target = self._path(key)
        with explained("read", path):
            source = path.open("rb")
        with source, explained("write", target), replacing(target) as file:
            shutil.copyfileobj(source, file, MIB)

    def list(self, prefix: str) -> list[Entry]:
        """All files whose key begins with `prefix`, sorted; those that vanish meanwhile are left out."""
        check_prefix(prefix)
        return sorted(self._walk(prefix), key=lambda entry: entry.key)

    def _walk(self, prefix: str) -> Iterator[Entry]:
        top, _, begin = prefix.rpartition("/")
        for folder, folders, files in os.walk(self.root / top, onerror=_unless_gone):
            # Only the first level can tell folders apart by the prefix; below, everything has it.
            folders[:] = [name for name in folders if name.startswith(begin)]
            begin = ""
            for name in files:
                path = Path(folder, name)
                key = path.relative_to(self.root).as_posix()
                # Others may keep files here that no key can name; they are none of ours.
                if not key.startswith(prefix) or key_problem(key):
                    continue
                with explained("read", path), suppress(FileNotFoundError):
                    stat = path.stat()
                    yield Entry(key, stat.st_size, stat.st_mtime)

    def names(self) -> builtins.list[str]:
        """Names of the folders in the root, sorted."""
        try:
            with os.scandir(self.root) as entries:
                return sorted(one.name for one in entries if one.is_dir() and not key_problem(one.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise explain(error, "read", self.root) from error

    def delete(self, keys: builtins.list[str]) -> None:
        """Remove files, and the folders that this leaves empty."""
        paths = [self._path(key) for key in keys]
        for path in paths:
            with explained("delete", path), suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
        for folder in {path.parent for path in paths}:
            self._prune(folder)

    def _prune(self, folder: Path) -> None:
        """Remove a folder and its parents below the root as long as they hold nothing but old leftovers."""
        while folder != self.root and self.root in folder.parents:
            try:
                _remove_leftovers(folder)
                folder.rmdir()
            except OSError:
                return  # Not empty, or someone else was faster: an empty folder does no harm.
            folder = folder.parent

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _unreadable(self, error: OSError, path: Path) -> StorageError:
        if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            return NotFoundError(f"{path} does not exist")
        return explain(error, "read", path)

    def _conflict(self, error: OSError, path: Path, if_absent: bool) -> StorageError:
        if if_absent and path.exists():
            return ExistsError(f"{path} exists already")
        return explain(error, "write", path)


def _remove_leftovers(folder: Path) -> None:
    names = os.listdir(folder)
    if all(name.startswith(TEMP_PREFIX) for name in names):
        for path in (folder / name for name in names):
            if time.time() - path.stat().st_mtime > LEFTOVER_S:
                path.unlink()


def _unless_gone(error: OSError) -> None:
    """os.walk's errors: a folder that is not there has no objects, any other one is told."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise explain(error, "read", Path(error.filename)) from error
