"""The modules of a user's own that a spec names: where they lie on this machine, and what a cluster is sent of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from jobs.errors import MissingExtraError, SpecError
from jobs.package import PACKAGES
from jobs.spec import JobSpec


def with_packages(spec: JobSpec, source: str) -> JobSpec:
    """The spec with absolute `runtime.packages`, those among them that its factories name.

    These are looked for beside the spec's file, if `source` is one, and in the working directory, in this order;
    what is in neither is installed, or missing. Nothing is imported.
    """
    folders = [os.path.abspath(os.path.dirname(source)), os.getcwd()] if os.path.isfile(source) else [os.getcwd()]
    given = [_checked(os.path.abspath(os.path.expanduser(package))) for package in spec.runtime.packages]
    named = {text.partition(":")[0].partition(".")[0] for text in _factories(spec.model_dump())}
    named -= {Path(package).stem for package in given}
    found = [place for name in sorted(named) if (place := _place(name, folders)) is not None]
    if [*given, *found] == spec.runtime.packages:
        return spec
    return spec.model_copy(update={"runtime": spec.runtime.model_copy(update={"packages": [*given, *found]})})


def to_send(spec: JobSpec) -> dict[str, Path]:
    """Names and places of the modules that travel with a job; SpecError if one cannot."""
    places = {Path(_checked(package)).stem: Path(package) for package in spec.runtime.packages}
    if taken := sorted(places.keys() & set(PACKAGES)):
        raise SpecError(f"{places[taken[0]]} has the name of a package of Highwater's own; give it another one")
    return places


def requirements_env(spec: JobSpec) -> dict[str, list[str]]:
    """The part of Ray's runtime_env that installs `runtime.requirements` on top of what its nodes have. Pure."""
    return {"pip": list(spec.runtime.requirements)} if spec.runtime.requirements else {}


def check_requirements(spec: JobSpec) -> None:
    """MissingExtraError, with the command that mends it, if this machine lacks one of `runtime.requirements`."""
    if not spec.runtime.requirements:
        return
    from jobs.requirements import missing

    if lacking := missing(spec.runtime.requirements):
        words = " ".join(f"'{line}'" for line in lacking)
        raise MissingExtraError(f"runtime.requirements are not met on this machine: pip install {words}")


def _checked(package: str) -> str:
    path = Path(package)
    if not path.is_dir() and not (path.is_file() and path.suffix == ".py"):
        raise SpecError(f"runtime.packages has {package}, and no folder or .py file is there; check the path")
    if not path.stem.isidentifier():
        raise SpecError(f"runtime.packages has {package}, whose name Python cannot import; give a package's folder")
    return package


def _place(name: str, folders: Sequence[str]) -> str | None:
    """The package's folder or the module's file; None if it is in none of the folders."""
    for folder in folders:
        spec = PathFinder.find_spec(name, [folder])
        if spec is not None and spec.submodule_search_locations:
            return str(Path(next(iter(spec.submodule_search_locations))))
        if spec is not None and spec.origin and spec.origin.endswith(".py"):
            return spec.origin
    return None


def _factories(value: Any) -> list[str]:  # noqa: ANN401 - a spec's document, or a part of one
    """The texts of all fields named `factory`, wherever they stand."""
    if isinstance(value, list | tuple):
        return [text for item in value for text in _factories(item)]
    if not isinstance(value, dict):
        return []
    here = value.get("factory")
    inner = [text for item in value.values() for text in _factories(item)]
    return [here, *inner] if isinstance(here, str) else inner
