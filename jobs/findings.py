"""What a check of the doctor may look at, and what it returns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from jobs.rundir import Record


class Check(Record):
    """One finding."""

    name: str
    state: Literal["ok", "warn", "fail"]
    message: str
    """What was found."""
    fix: str = ""
    """What to do about it; empty if all is well."""


@dataclass(frozen=True)
class Facts:
    """Where checks look. The defaults are this machine."""

    storage: str = "runs"
    endpoint: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")
    home: Path = field(default_factory=Path.home)
    cpus: int = field(default_factory=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    version: Callable[[str], str | None] = field(default=lambda name: _version(name))
    """Version of an installed distribution."""
    requires: Callable[[str], list[str]] = field(default=lambda name: _requires(name))
    """What an installed distribution asks for, as in its metadata."""
    now: Callable[[], float] = time.time


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
