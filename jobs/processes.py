"""Ends all processes of a session: a driver and what it started, a Ray of its own included."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from jobs.process import process_mark

#: Looks at the process table at most: a process may start another one while it is being ended.
ROUNDS = 5


def end_session(leader: int) -> None:
    """SIGKILL to every process of the session that `leader` leads or led.

    Ray gives each of its workers a process group of its own, so a signal to the leader's group misses them;
    none of them leaves the session. Call it while the leader is not reaped, or at once after: its number
    could otherwise be another's. The caller's own session is never ended.
    """
    if leader == os.getsid(0):
        return
    for _ in range(ROUNDS):
        members = session_members(leader)
        for pid in members:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not members:
            return


def session_members(leader: int) -> list[int]:
    """Numbers of the session's processes that still run; zombies are left out."""
    return [pid for pid in _all_processes() if _session(pid) == leader and process_mark(pid) is not None]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _all_processes() -> list[int]:
    if Path("/proc/self/stat").exists():
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    answer = subprocess.run(["ps", "-axo", "pid="], capture_output=True, text=True, check=False)
    return [int(word) for word in answer.stdout.split()]
