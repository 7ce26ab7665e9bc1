"""The doctor's checks of what is installed and set."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import cache_from_source, find_spec
from pathlib import Path

from jobs.findings import Check, Facts


def check_python(_: Facts) -> list[Check]:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    return [Check(name="python", state="ok", message=f"{version} at {sys.executable}")]


def check_packages(facts: Facts) -> list[Check]:
    """Highwater itself, and what training needs."""
    own = facts.version("highwater")
    found = [
        Check(name="highwater", state="ok", message=own)
        if own
        else Check(name="highwater", state="warn", message="runs from a folder", fix="pip install -e '.[train]'")
    ]
    for name in ("torch", "ray"):
        version = facts.version(name)
        found.append(
            Check(name=name, state="ok", message=version)
            if version
            else Check(
                name=name,
                state="warn",
                message="not installed: this machine can submit runs, not train",
                fix="pip install 'highwater[train]'",
            )
        )
    return found + _pair(facts)


def _pair(facts: Facts) -> list[Check]:
    """torchvision is built for one torch, and with another fails at import with an obscure message."""
    torch, vision = facts.version("torch"), facts.version("torchvision")
    if not torch or not vision:
        return []
    wanted = [
        match[1] for text in facts.requires("torchvision") if (match := re.match(r"torch\s*\(?==\s*([\w.]+)", text))
    ]
    release, _, build = torch.partition("+")
    if (wanted and release not in wanted) or build != vision.partition("+")[2]:
        return [
            Check(
                name="torchvision",
                state="fail",
                message=f"{vision} is not built for torch {torch}",
                fix="install both from the same index in one command: pip install --upgrade torch torchvision",
            )
        ]
    return [Check(name="torchvision", state="ok", message=f"{vision} is built for torch {torch}")]


def check_gpu(facts: Facts) -> list[Check]:
    """What nvidia-smi sees; torch is not loaded for it."""
    if shutil.which("nvidia-smi", path=facts.environ.get("PATH")) is None:
        return [Check(name="gpu", state="ok", message="none (no nvidia-smi): runs train on the CPU")]
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False, env=dict(facts.environ))
    if answer.returncode != 0:
        said = " ".join((answer.stdout + answer.stderr).split())[:200]
        return [Check(name="gpu", state="fail", message=f"nvidia-smi fails: {said}", fix="mend the NVIDIA driver")]
    return [Check(name="gpu", state="ok", message=line.strip()) for line in answer.stdout.splitlines() if line.strip()]


def check_bytecode(facts: Facts) -> list[Check]:
    """Whether torch and Ray are byte-compiled: if not, every Ray process compiles them again (start-up x 2.5)."""
    missing = [name for name in ("torch", "ray") if not _compiled(name)]
    if missing:
        trap = " and PYTHONDONTWRITEBYTECODE keeps it so" if facts.environ.get("PYTHONDONTWRITEBYTECODE") else ""
        return [
            Check(
                name="byte code",
                state="warn",
                message=f"{' and '.join(missing)}: not compiled{trap}, so every Ray process starts slowly",
                fix=f"{sys.executable} -m compileall -q -j 0 {_site_packages()}",
            )
        ]
    return [Check(name="byte code", state="ok", message="compiled")]


def _compiled(name: str) -> bool:
    spec = find_spec(name)
    return spec is None or spec.origin is None or Path(cache_from_source(spec.origin)).exists()


def _site_packages() -> Path:
    spec = find_spec("torch") or find_spec("ray") or find_spec("pydantic")
    return Path(spec.origin or ".").parent.parent if spec else Path()


def check_ray_environment(facts: Facts) -> list[Check]:
    """Variables and files that change what Ray connects to, behind one's back."""
    found = []
    env = facts.environ
    if address := env.get("RAY_ADDRESS"):
        found.append(
            Check(
                name="RAY_ADDRESS",
                state="warn",
                message=f"is {address}, and Ray's own commands go there",
                fix="unset it, or say where a run goes with --ray",
            )
        )
    if "RAY_AUTH_MODE" not in env and (facts.home / ".ray/auth_token").exists():
        found.append(
            Check(
                name="RAY_AUTH_MODE",
                state="warn",
                message="is not set, and ~/.ray/auth_token makes `ray start` ask for tokens that clients do not send",
                fix="export RAY_AUTH_MODE=disabled (or token, on every side)",
            )
        )
    if env.get("RAY_TMPDIR") == "":
        found.append(
            Check(
                name="RAY_TMPDIR",
                state="fail",
                message="is set to nothing, so Ray never starts",
                fix="unset RAY_TMPDIR",
            )
        )
    return found or [Check(name="ray environment", state="ok", message="nothing surprising")]
