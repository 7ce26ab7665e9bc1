"""Starts a driver process on this machine, and explains its end if it could not do so itself.

The driver runs in a session of its own, so that Ctrl-C reaches only `highwater`, which passes it on. If
`highwater` itself is killed, the driver goes on: it is the run, and `highwater status NAME` shows it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from jobs.display import Display
from jobs.errors import EXIT_CODES, HighwaterError, MissingExtraError, RayError, Reason, SpecError
from jobs.process import process_mark
from jobs.processes import end_session
from jobs.spec import JobSpec
from jobs.specfile import SPEC_VARIABLE

#: Module that drives a run; it is only named here, as this package imports no torch.
DRIVER_MODULE = "trainers.run"
#: Lines of a dead driver's output that are shown.
TAIL_LINES = 15


class DriverError(HighwaterError):
    """The driver ended before it could write how the run ended; `tail` holds its last output."""

    def __init__(self, message: str, reason: Reason | None = None, tail: tuple[str, ...] = ()) -> None:
        super().__init__(message, reason)
        self.args = (message, reason, tail)
        self.tail = tail


@dataclass
class LocalDriver:
    """A driver process on this machine. Its output goes to a file: a pipe would end it along with its reader."""

    process: subprocess.Popen[bytes]
    name: str
    log: Path
    alive: None = field(default=None, init=False)

    def ended(self) -> bool:
        """Whether the process has exited."""
        return self.process.poll() is not None

    def interrupt(self) -> str:
        """SIGINT to the driver, which saves and leaves."""
        if not self.ended():
            self.process.send_signal(signal.SIGINT)
        return "saving, then leaving (press Ctrl-C again to leave without saving)"

    def abandon(self) -> str:
        """SIGKILL to the driver and all that it started, a Ray of its own included."""
        if not self.ended():
            end_session(self.process.pid)
            self.process.wait()
        return "left at once; what was computed since the last save will be computed again"

    def tell(self, display: Display) -> None:
        """Nothing: all is in the run directory."""

    def failure(self) -> DriverError:
        """Why the driver is gone though it wrote no result."""
        code = self.process.wait()
        if code < 0 and process_mark(self.process.pid) is None:
            # A killed driver could not end its Ray; its number is no other process's yet.
            end_session(self.process.pid)
        tail = last_lines(self.log)
        for mark in ("highwater: ", "python -m trainers.run: error: "):
            if tail and tail[-1].startswith(mark):
                self.log.unlink(missing_ok=True)
                return DriverError(tail[-1].removeprefix(mark), reason_of(code))
        return DriverError(
            f"the driver of {self.name} {_ended(code)} before it could write a result; its output is in {self.log}",
            reason_of(code),
            tail,
        )


def start(
    spec: JobSpec,
    name: str,
    *,
    ray: str | None = None,
    until: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> LocalDriver:
    """Start `python -m trainers.run` with the spec in its environment; returns at once."""
    descriptor, path = tempfile.mkstemp(prefix=f"highwater-{name}-", suffix=".log")
    environment = driver_environment(spec, os.environ if environ is None else environ)
    with os.fdopen(descriptor, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *safe_path(), "-m", DRIVER_MODULE, *arguments(name, ray, until), "--quiet"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return LocalDriver(process, name, Path(path))


def safe_path() -> list[str]:
    """`-P` where highwater is installed, so that a folder `jobs` or `trainers` in the person's project is not ours."""
    try:
        distribution("highwater")
    except PackageNotFoundError:
        return []
    return ["-P"]


def arguments(name: str, ray: str | None, until: str | None) -> list[str]:
    """The driver's arguments; the spec is in its environment. Pure."""
    return ["-", "--name", name, *(["--ray", ray] if ray else []), *(["--until", until] if until else [])]


def driver_environment(spec: JobSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a driver on this machine. Pure.

    A local Ray turns token authentication on by itself and leaves a token behind that other clients then
    trip over, so the mode is always said.
    """
    defaults = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1"}
    return defaults | dict(environ) | {SPEC_VARIABLE: json.dumps(spec.model_dump(mode="json"))}


def require_train_extra(modules: Sequence[str]) -> None:
    """Raise `MissingExtraError` unless a driver that needs these modules can run on this machine; imports nothing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(
            f"training on this machine needs {' and '.join(missing)}: pip install 'highwater[train]', "
            "or send the run to a cluster with --ray http://HOST:8265"
        )


def check_ray_address(address: str) -> None:
    """Refuse what no driver understands. Pure."""
    host, colon, port = address.rpartition(":")
    if address not in ("auto", "none") and "://" not in address and not (host and colon and port.isdigit()):
        raise SpecError(
            f"--ray {address} is no address of a Ray; give auto, HOST:PORT, http://HOST:8265, or none for no Ray at all"
        )
    if address.startswith("ray://"):
        raise RayError(
            f"{address} is a Ray Client address, through which no training runs; "
            "give the dashboard's, such as http://HOST:8265, or `auto` on a machine of the cluster"
        )


def last_lines(path: Path, count: int = TAIL_LINES) -> tuple[str, ...]:
    """The last lines of a text file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ()
    return tuple(line.rstrip() for line in lines if line.strip())[-count:]


def reason_of(code: int) -> Reason:
    """The reason behind a driver's exit code, as well as it can be told. Total and pure.

    Several reasons share a code; a signal that the driver did not handle means that it was killed.
    """
    if code < 0:
        return Reason.WORKER_LOST
    return next((reason for reason, known in EXIT_CODES.items() if known == code and code), Reason.INTERNAL)


def _ended(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (", perhaps for want of memory," if name == "SIGKILL" else "")
