"""What a run ran on: versions, commit, devices. Written into each attempt's record."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("highwater", "torch", "torchvision", "ray", "numpy", "pyarrow", "pydantic")


def environment() -> dict[str, Any]:
    """Facts about this process's machine and installation, as JSON. Never fails for a fact it cannot find."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit(Path(__file__).resolve().parent),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def commit(folder: Path) -> str | None:
    """The git commit of the code, with `+` if the work tree differs from it; None outside a repository."""
    try:
        # Installed below somebody else's repository, the code has none of its own.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
