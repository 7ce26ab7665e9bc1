"""From what a person calls a run (a name, a folder, an s3:// URI) to its run directory."""

from __future__ import annotations

import difflib
from pathlib import Path

from infra.storage import is_local, open_store
from jobs.errors import HighwaterError, NotFoundError, StorageError
from jobs.rundir import ObjectStore, RunDir
from jobs.submission import refusal

#: How a run is spoken of that Kubernetes was asked for and its driver did not begin.
REFUSED = "was refused before it began:"


def resolve(run: str, storage: str, endpoint: str | None = None) -> RunDir:
    """The run directory that `run` means; a plain name is one in `storage`, and wins over a folder of that name.

    NotFoundError, with the nearest names, if there is no run; StorageError if storage cannot be read.
    """
    if "/" not in run and not run.startswith(("~", ".")):
        named = RunDir(open_store(storage, endpoint), run)
        if run and is_run(named):
            return named
        if not run or not Path(run, "spec.json").is_file():
            raise _not_a_run(named)
    found = place(run, endpoint)
    if not is_run(found):
        raise _not_a_run(found)
    return found


def is_run(run: RunDir) -> bool:
    """Whether a run was ever begun there: the spec is the first thing it writes."""
    try:
        run.store.get(run.key("spec.json"))
    except NotFoundError:
        return False
    return True


def list_runs(store: ObjectStore) -> list[RunDir]:
    """All runs of a storage, by name; other folders there are left out."""
    runs = (RunDir(store, name) for name in store.names())
    return [run for run in runs if is_run(run)]


def place(uri: str, endpoint: str | None) -> RunDir:
    """The run directory at a folder or URI: its last part is the name, what is before it the storage."""
    text = uri.rstrip("/")
    if is_local(uri):
        try:
            text = str(Path(text.removeprefix("file://")).expanduser().resolve())
        except (RuntimeError, OSError) as error:
            raise StorageError(f"{uri!r} is not a path that can be read ({error})") from error
    parent, _, name = text.rpartition("/")
    if not name or parent == "s3:/" or not parent:
        raise StorageError(f"{uri!r} is a storage and not a run in it; add the run's name")
    return RunDir(open_store(parent, endpoint), name)


def _not_a_run(run: RunDir) -> HighwaterError:
    if run.name and (error := refusal(run)):
        return HighwaterError(f"run {run.name} {REFUSED} {error.message}", error.reason)
    names = [one.name for one in list_runs(run.store)]
    near = difflib.get_close_matches(run.name, names, n=3, cutoff=0.5) or names[-3:]
    hint = f"there are for example {', '.join(near)}" if near else "it holds no run yet"
    return NotFoundError(f"there is no run {run.name!r} in {run.store.uri}: {hint}")
