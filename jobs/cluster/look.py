"""Where runs on a cluster are, as records: what their RayJobs say, and what their directories do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from jobs import table
from jobs.cluster.existing import Existing, existing, seconds
from jobs.cluster.kube import Kube
from jobs.cluster.manifest import APP, PART_OF, RUN_LABEL
from jobs.cluster.progress import read_status
from jobs.cluster.session import Reached
from jobs.cluster.standing import Phase, standing
from jobs.cluster.waiting import WAITS, ask
from jobs.errors import HighwaterError, NameInUseError, NotFoundError, StorageError
from jobs.resolve import is_run
from jobs.rundir import Record, Result
from jobs.status import RunStatus, status_of
from jobs.units import duration


class JobRow(Record):
    """A RayJob of a run. `highwater status --cluster --json` prints a list of these."""

    name: str
    phase: Phase
    message: str
    workers: int | None
    created: float
    """Seconds since 1970; 0 if unknown."""

    def age(self, now: float) -> str:
        """For how long it is there."""
        return duration(max(0.0, now - self.created)) if self.created else "?"


@dataclass(frozen=True)
class Look:
    """One run at one look."""

    name: str
    rayjob: JobRow | None
    run: RunStatus | None
    waiting: str | None
    """Why it does not run yet."""
    problem: str | None
    """Why its directory cannot be read."""

    @property
    def result(self) -> Result | None:
        """How it ended, if its directory says so."""
        return self.run.result if self.run else None

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "rayjob": self.rayjob.model_dump(mode="json") if self.rayjob else None,
            "waiting": self.waiting,
            "run": self.run.model_dump(mode="json") if self.run else None,
            "problem": self.problem,
        }

    def text(self, words: str) -> str:
        """For a person; `words` are the options that name the cluster."""
        job = f"{self.rayjob.phase.value}: {self.rayjob.message}" if self.rayjob else "gone; resume makes it anew"
        lines = [f"{'run':14}{self.name}"] if self.run is None else table.details(self.run).splitlines()
        # What to do next is another command for a run on a cluster.
        lines = [line for line in lines if not line.startswith("next ")]
        lines.append(f"{'RayJob':14}{job}")
        if self.waiting:
            lines.append(f"{'waiting':14}{self.waiting}")
        if self.problem:
            lines.append(f"{'directory':14}{self.problem}")
        lines.append(f"{'next':14}{self._next()} {self.name} {words}{self._more()}")
        return "\n".join(lines)

    def _next(self) -> str:
        if self._goes_on:
            return "highwater status"
        return "highwater pull" if self.run and self.run.state == "finished" else "highwater resume"

    def _more(self) -> str:
        return " --watch" if self._goes_on else ""

    @property
    def _goes_on(self) -> bool:
        return self.rayjob is not None and self.rayjob.phase in (*WAITS, Phase.RUNNING)


def look(reached: Reached, kube: Kube | None) -> Look:
    """One run; with `kube`, also why it waits. Its directory is read through a pod where storage cannot be."""
    row = row_of(reached.there) if reached.there else None
    waiting = None
    if kube is not None and reached.there is not None and reached.there.standing.phase in WAITS:
        waiting = ask(kube, reached.there.standing, reached.name)
    run, problem = _status(reached)
    return Look(reached.name, row, run, waiting, problem)


def listed(kube: Kube) -> list[JobRow]:
    """All runs of a namespace that have a RayJob, newest first."""
    jobs = [job for job in kube.list("RayJob", {PART_OF: APP}) if RUN_LABEL in job["metadata"].get("labels", {})]
    rows = []
    for job in jobs:
        try:
            rows.append(row_of(existing(job, kube.where)))
        except NameInUseError as error:
            at = standing(job)
            created = seconds(str(job["metadata"].get("creationTimestamp", "")))
            name = str(job["metadata"]["name"])
            rows.append(JobRow(name=name, phase=at.phase, message=error.message, workers=None, created=created))
    return sorted(rows, key=lambda row: -row.created)


def row_of(there: Existing) -> JobRow:
    """A run's RayJob as a row."""
    return JobRow(
        name=there.name,
        phase=there.standing.phase,
        message=there.standing.message,
        workers=there.spec.workers,
        created=there.created,
    )


def _status(reached: Reached) -> tuple[RunStatus | None, str | None]:
    try:
        if reached.run is not None:
            return (status_of(reached.run, time.time()), None) if is_run(reached.run) else (None, None)
        return RunStatus.model_validate(read_status(reached.door)[0]), None
    except NotFoundError:
        return None, None
    except StorageError as error:
        return None, error.message
    except HighwaterError as error:
        return None, f"{reached.why_not}; nor through a pod: {error}"
