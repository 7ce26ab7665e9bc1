"""What a request to run becomes, given the RayJob and the run directory that are there. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from jobs.admission import Seen, Verdict, admit
from jobs.cluster.existing import Existing
from jobs.cluster.standing import Phase
from jobs.errors import NameInUseError
from jobs.lease import told
from jobs.spec import JobSpec


class Move(StrEnum):
    """What is done about the RayJob."""

    CREATE = "create"
    ADOPT = "adopt"
    REPLACE = "replace"
    """It has ended without finishing the run: it goes, and a new one goes on."""
    FINISHED = "finished"


@dataclass(frozen=True)
class Decision:
    """The move, and one sentence for a person, or nothing."""

    move: Move
    note: str = ""


def decide(spec: JobSpec, until: str | None, there: Existing | None, seen: Seen, *, read: bool, now: float) -> Decision:
    """The same name twice is the same run: adopted while it goes on, resumed after it ended, told when it is done.

    `read` says that `seen` was read from storage; else it knows nothing but the name. NameInUseError with the fields
    that differ if the name is another run's.
    """
    if there is not None and not there.standing.ended:
        admit(replace(seen, spec=there.spec, alive=True), spec, now)
        until_note = f"; it leaves after stage {there.until}" if there.until and there.until != until else ""
        return Decision(Move.ADOPT, f"run {seen.name} is there and goes on: {there.standing.message}{until_note}")
    if there is None and seen.alive and seen.lease is not None:
        raise NameInUseError(
            f"run {seen.name} is driven by {told(seen.lease, now)}, which is no RayJob of this namespace; "
            "wait for it, or use another --name"
        )
    # A start that was refused before the run began binds nobody: the directory, where it can be read, says so.
    carried = there.spec if there is not None and not read else None
    known = replace(seen, alive=False, spec=seen.spec or carried)
    admission = admit(known, spec, now)
    if admission.verdict is Verdict.FINISHED:
        return Decision(Move.FINISHED, admission.note)
    if there is None:
        return Decision(Move.CREATE, admission.note)
    if not read and there.standing.phase is Phase.SUCCEEDED and not _more(there, spec, until):
        return Decision(Move.FINISHED, f"run {seen.name} has succeeded")
    if read:
        return Decision(Move.REPLACE, admission.note)
    return Decision(Move.REPLACE, f"run {seen.name} goes on from its last checkpoint")


def _more(there: Existing, spec: JobSpec, until: str | None) -> bool:
    """Whether more is asked than the RayJob was to do."""
    old = there.spec
    return there.until != until or (spec.epochs or 0) > (old.epochs or 0) or (spec.steps or 0) > (old.steps or 0)
