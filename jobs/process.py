"""Which process this is, in words that another process can check, on Linux and macOS, with no dependency."""

from __future__ import annotations

import calendar
import os
import secrets
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """A driver: a random id, and the process that it is."""

    owner: str
    host: str
    """Machine, boot and pid namespace: two processes see the same pids only if these are equal."""
    pid: int
    process_started: float
    """Seconds since 1970."""
    process_mark: str
    """What the system says of the process's start; with host and pid it is never used again."""


def this_process() -> Identity:
    """The calling process with a new random owner id; call it once per driver."""
    pid = os.getpid()
    mark = process_mark(pid) or ""
    return Identity(secrets.token_hex(8), this_host(), pid, _started(mark), mark)


def this_host() -> str:
    """`hostname/boot/pid namespace`; containers on one machine differ, and so does a machine after a reboot."""
    boot = _read(Path("/proc/sys/kernel/random/boot_id"))[:8]
    try:
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        namespace = ""
    return "/".join((socket.gethostname(), boot, namespace)).rstrip("/")


def process_mark(pid: int) -> str | None:
    """The system's note of when a process of this host began, or None if it is gone or only a zombie."""
    if Path("/proc/self/stat").exists():
        # The second field is the program's name in brackets, and may itself hold brackets and spaces.
        fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        return None if len(fields) < 20 or fields[0] in "ZX" else fields[19]
    answer = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C", "TZ": "UTC"},
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else " ".join(started.split())


def _started(mark: str) -> float:
    """Seconds since 1970 of a mark of this host; 0 if the system does not tell."""
    if mark.isdigit():
        up = _read(Path("/proc/uptime")).split()
        return time.time() - (float(up[0]) - int(mark) / os.sysconf("SC_CLK_TCK")) if up else 0.0
    try:
        return float(calendar.timegm(time.strptime(mark, "%a %b %d %H:%M:%S %Y")))
    except ValueError:
        return 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
