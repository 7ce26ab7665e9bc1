"""What follows from a reason: the run's state, and whether another attempt is worth it. Pure tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from jobs.errors import Reason


class State(StrEnum):
    """The run's state as a person would say it."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


STATES: dict[Reason, State] = {
    Reason.DONE: State.FINISHED,
    Reason.STOPPED: State.INTERRUPTED,
    Reason.PREEMPTED: State.INTERRUPTED,
    Reason.LEASE_LOST: State.INTERRUPTED,
    Reason.BAD_SPEC: State.FAILED,
    Reason.BAD_DATA: State.FAILED,
    Reason.BAD_STORAGE: State.FAILED,
    Reason.NAME_IN_USE: State.FAILED,
    Reason.LOSS_NAN: State.FAILED,
    Reason.OUT_OF_MEMORY: State.FAILED,
    Reason.WORKER_LOST: State.FAILED,
    Reason.RAY_UNREACHABLE: State.FAILED,
    Reason.MISSING_EXTRA: State.FAILED,
    Reason.USER_CODE: State.FAILED,
    Reason.INTERNAL: State.FAILED,
}

#: Further attempts that each reason is worth while no step is gained. Preemption is not the run's fault, yet
#: bounded; a lost worker may be a bad node; what is wrong in the spec, the data or the code stays wrong. What ran
#: out of memory does so again at the same size: the driver goes on with a smaller one, which is another matter.
RETRIES: dict[Reason, int] = dict.fromkeys(Reason, 0) | {Reason.PREEMPTED: 20, Reason.WORKER_LOST: 3}


#: Whether a new cluster may end better than the one that this reason ended. What is wrong in spec, data, code or size
#: is as wrong there, and what was stopped is meant to stay so.
ELSEWHERE: dict[Reason, bool] = dict.fromkeys(Reason, False) | {
    Reason.PREEMPTED: True,
    Reason.WORKER_LOST: True,
    Reason.RAY_UNREACHABLE: True,
    # It was good when the run began, or the driver would have said so then.
    Reason.BAD_STORAGE: True,
    Reason.LEASE_LOST: True,
    Reason.INTERNAL: True,
}


@dataclass(frozen=True)
class Ended:
    """How one attempt of this driver ended, and the step it had reached for good."""

    reason: Reason
    step: int


def worth_retrying(ended: Sequence[Ended]) -> bool:
    """Whether to start another attempt after these, oldest first.

    Each cause has its own budget, and reaching a new step fills it again: a run that gets on may be
    preempted any number of times.
    """
    newest = ended[-1]
    without_gain = 0
    for earlier, later in zip(reversed(ended[:-1]), reversed(ended[1:]), strict=True):
        if later.step > earlier.step:
            break
        without_gain += earlier.reason == newest.reason
    return without_gain < RETRIES[newest.reason]
