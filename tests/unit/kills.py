"""Runs that are killed at random instants, and whether what is left of them equals a run that was not."""

from __future__ import annotations

import os
import random
import signal
import time

from jobs.errors import Reason
from jobs.spec import JobSpec
from tests.led import in_child, lead, run_of

from .tiny import curve

ATTEMPTS = 12
#: Of the time that the straight run took, which on a busy machine may be longer than that of the next one.
LONGEST = 0.5


def kill_at_random(spec: JobSpec, name: str, draw: random.Random, longest_s: float) -> bool:
    """Lead the run in a child and SIGKILL it after a random time; whether it was still running."""
    pid = in_child(lambda: lead(spec, name))
    time.sleep(draw.uniform(0.0, longest_s))
    done, _ = os.waitpid(pid, os.WNOHANG)
    if done:
        return False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def check_kills(spec: JobSpec, seed: int) -> None:
    """Kill a run again and again until it is done, and compare all that it measured, bit for bit."""
    began = time.monotonic()
    assert os.waitpid(in_child(lambda: lead(spec, "straight")), 0)[1] == 0
    longest, draw, kills = LONGEST * (time.monotonic() - began), random.Random(seed), 0
    for _ in range(ATTEMPTS):
        kills += kill_at_random(spec, "killed", draw, longest)
        if (result := run_of(spec, "killed").result()) and result.reason is Reason.DONE:
            break
    assert os.waitpid(in_child(lambda: lead(spec, "killed")), 0)[1] == 0
    assert kills >= 1
    assert curve(run_of(spec, "killed")) == curve(run_of(spec, "straight"))
