"""One start of a run on Kubernetes, as its directory notes it: written by the driver, read by whoever watches."""

from __future__ import annotations

from jobs.errors import HighwaterError, Reason
from jobs.rundir import Record, RunDir

RECORD = "control/submission.json"


class Submission(Record):
    """A start by a person, a schedule or a chart; retries by Kubernetes belong to it."""

    id: str
    began: float
    """Seconds since 1970."""
    refused: str | None = None
    """Why it could not become a run, where the directory has no result that says so."""
    reason: Reason | None = None


def noted(run: RunDir) -> Submission | None:
    """The newest submission; None for a run that was never on Kubernetes. StorageError if it cannot be read."""
    return run.read_as(RECORD, Submission)


def refusal(run: RunDir, submission: str | None = None) -> HighwaterError | None:
    """Why the newest submission did not become a run, if it did not; with `submission` only if it is that one."""
    newest = noted(run)
    if newest is None or newest.refused is None or submission not in (None, newest.id):
        return None
    return HighwaterError(newest.refused, newest.reason)
