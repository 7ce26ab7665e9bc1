"""Checkpoints that a person wants to keep, whatever retention would let go."""

from __future__ import annotations

from jobs.admission import CHECKPOINT
from jobs.errors import NotFoundError
from jobs.rundir import Record, RunDir

RECORD = "control/pins.json"


class Pins(Record):
    """The steps whose checkpoints stay."""

    steps: tuple[int, ...] = ()


def pinned(run: RunDir) -> frozenset[int]:
    """Steps whose checkpoints retention must not let go; StorageError if the record cannot be understood."""
    record = run.read_as(RECORD, Pins)
    return frozenset(record.steps) if record else frozenset()


def pin(run: RunDir, step: int | None = None, *, remove: bool = False) -> tuple[int, ...]:
    """Keep the checkpoint of this step (default: the newest), or with `remove` no longer; the steps that are kept now.

    NotFoundError, with the steps that there are, if no whole checkpoint has that step. A run that goes on lets a
    checkpoint go when it saves the next one, so a pin that comes later than that is refused as well.
    """
    there = saved_steps(run)
    before = pinned(run)
    chosen = max(before if remove else there, default=None) if step is None else step
    if chosen is None or chosen not in (before if remove else there):
        known = ", ".join(str(one) for one in sorted(before if remove else there)) or "none"
        what = "is not pinned; pinned steps" if remove else "has no checkpoint; steps with one"
        raise NotFoundError(f"step {chosen} of run {run.name} {what}: {known}")
    steps = tuple(sorted(before - {chosen} if remove else before | {chosen}))
    run.write(RECORD, Pins(steps=steps))
    return steps


def sentence(run: RunDir, steps: tuple[int, ...]) -> str:
    """What is kept now, for a person. Pure."""
    return f"pinned checkpoints of run {run.name}: {', '.join(map(str, steps)) or 'none'}"


def saved_steps(run: RunDir) -> frozenset[int]:
    """Steps of all checkpoints that have been committed."""
    prefix = run.key("")
    found = (CHECKPOINT.fullmatch(e.key.removeprefix(prefix)) for e in run.store.list(run.key("checkpoints/")))
    return frozenset(int(match[1]) for match in found if match)
