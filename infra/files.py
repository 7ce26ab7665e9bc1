"""Local files: written whole or not at all, and OS errors as one sentence."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from infra.keys import TEMP_PREFIX
from jobs.errors import StorageError

MIB = 1 << 20
#: Tries to open a file in a folder that another process keeps removing because it is empty.
OPEN_TRIES = 20


@contextmanager
def replacing(path: Path, *, exclusive: bool = False) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` atomically and durably when the block ends without an error.

    With `exclusive`, FileExistsError if `path` exists by then. Raises OSError as it comes.
    """
    temp, file = _open_temp(path.parent)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            _link(temp, path)
        else:
            os.replace(temp, path)
    finally:
        with suppress(OSError):
            os.unlink(temp)
    # Where the folder is gone, somebody has deleted the file again already: it was there.
    with suppress(FileNotFoundError):
        sync_folder(path.parent)


def _open_temp(folder: Path) -> tuple[Path, BinaryIO]:
    temp = folder / f"{TEMP_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
    for last in (*[False] * (OPEN_TRIES - 1), True):
        try:
            # A parent may be removed between its creation and that of the folder, too.
            make_folder(folder)
            return temp, open(temp, "xb")
        except FileNotFoundError:
            if last:
                raise
    raise AssertionError("unreachable")


def _link(temp: Path, path: Path) -> None:
    """Give the file its name only if the name is free: unlike O_EXCL, with all of its content at once."""
    try:
        os.link(temp, path)
    except FileExistsError:
        # NFS may repeat a link that succeeded and then report that it exists: two links mean it is ours.
        if os.stat(temp).st_nlink != 2:
            raise


def make_folder(folder: Path) -> None:
    """Create a folder and its parents durably; one that exists is fine."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        with suppress(FileExistsError):
            one.mkdir()
        with suppress(FileNotFoundError):
            sync_folder(one.parent)
    # One look: between two of them another process may remove the folder and make it again.
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(folder.stat().st_mode):
            return
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut, where the file system can promise that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a folder and say so.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """OSError inside the block becomes a StorageError that says what could not be done where."""
    try:
        yield
    except OSError as error:
        raise explain(error, action, path) from error


def explain(error: OSError, action: str, path: Path) -> StorageError:
    """One sentence for a person about an OS error; `action` is a verb such as `write`."""
    where = f"cannot {action} {path}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            text = f"{where}: no space is left on the device; free some, or choose another --storage"
        case errno.EROFS:
            text = f"{where}: the file system is read-only; mount it writable, or choose another --storage"
        case errno.EACCES | errno.EPERM:
            text = f"{where}: permission denied for user id {os.geteuid()}; change its owner or mode, or choose another"
        case errno.ENOTDIR | errno.EISDIR:
            text = f"{where}: {error.filename or path} is a file where a folder is needed, or the reverse; move it away"
        case errno.ENAMETOOLONG:
            text = f"{where}: the name is too long for the file system; choose a shorter one"
        case errno.ENOENT:
            text = f"{where}: there is no such file"
        case _:
            text = f"{where}: {error.strerror or error}"
    return StorageError(text)
