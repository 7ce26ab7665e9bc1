"""What pip requirement lines mean: whether one is well-formed, and which are not met on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import InvalidRequirement, Requirement


def requirement(value: str) -> str:
    """A requirement as pip takes it (PEP 508), for a sentence of `jobs.spec_checks`' kind."""
    try:
        Requirement(value)
    except InvalidRequirement as error:
        raise ValueError("a requirement such as einops>=0.8, or NAME @ URL of a wheel or repository") from error
    return value


def missing(lines: Iterable[str]) -> list[str]:
    """Those of the requirements that are not installed here, or in another version."""
    return [line for line in lines if not _is_met(Requirement(line))]


def _is_met(wanted: Requirement) -> bool:
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False
