"""Checks what Highwater needs of this machine, and says what to do about the rest.

Every check is a small function of `Facts` that returns `Check`s, so that each can be tested without the
machine that it warns of.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from jobs import doctor_machine, doctor_software
from jobs.errors import HighwaterError
from jobs.findings import Check, Facts
from jobs.rundir import Record

CHECKS: tuple[Callable[[Facts], list[Check]], ...] = (
    doctor_software.check_python,
    doctor_software.check_packages,
    doctor_software.check_gpu,
    doctor_software.check_bytecode,
    doctor_machine.check_disk,
    doctor_machine.check_shm,
    doctor_machine.check_memory,
    doctor_machine.check_threads,
    doctor_software.check_ray_environment,
    doctor_machine.check_storage,
    doctor_machine.check_clock,
)


class Diagnosis(Record):
    """All findings. `highwater doctor --json` prints it."""

    checks: list[Check]

    @property
    def failed(self) -> bool:
        """Whether anything would stop a run."""
        return any(check.state == "fail" for check in self.checks)


def diagnose(facts: Facts | None = None) -> Diagnosis:
    """Run every check; a check that breaks is a warning, never the end of the diagnosis."""
    facts = facts or Facts()
    found: list[Check] = []
    for check in CHECKS:
        try:
            found += check(facts)
        except (HighwaterError, OSError, ValueError, subprocess.SubprocessError) as error:
            name = check.__name__.removeprefix("check_")
            found.append(Check(name=name, state="warn", message=f"could not be checked: {error}"))
    return Diagnosis(checks=found)
