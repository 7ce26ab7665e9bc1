"""Asks a run to save and leave, and waits until it has."""

from __future__ import annotations

import time
from collections.abc import Callable

from jobs.attach import ask_to_stop, is_driven
from jobs.errors import HighwaterError, Reason
from jobs.rundir import RunDir

LOOK_S = 1.0


def ask(run: RunDir, *, unseen: bool = False) -> str:
    """Ask whoever drives the run to save and leave; one sentence that says so, or that nobody does.

    With `unseen` a driver that is only on its way is asked too: its caller knows that there is one.
    """
    if not unseen and not is_driven(run):
        result = run.result()
        how = f"it ended: {result.reason.value}" if result else "no driver is at it"
        return f"run {run.name} does not run: {how}"
    ask_to_stop(run, "highwater cancel")
    return f"asked run {run.name} to save and leave"


def wait_left(
    name: str,
    left: Callable[[], bool],
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Return once the run has left; HighwaterError if it has not after so many seconds."""
    end = clock() + seconds
    while not left():
        if clock() >= end:
            raise HighwaterError(
                f"run {name} has not left after {seconds:.0f} s; wait longer, or end it with --force on a cluster",
                Reason.INTERNAL,
            )
        pause(min(LOOK_S, max(0.0, end - clock())))
