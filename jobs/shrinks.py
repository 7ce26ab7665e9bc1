"""The record of the smaller micro-batches that out-of-memory errors made necessary. Pure."""

from __future__ import annotations

from pydantic import PositiveInt

from jobs.rundir import Record, Row, RunDir

RECORD = "stages/shrink.json"


class Shrinks(Record):
    """What a run goes on with after running out of memory, and how it came to that."""

    batch: PositiveInt
    """Rows per worker per micro-step that the run never exceeds again."""
    accumulation: PositiveInt
    """Micro-steps that kept the global batch with the workers of then."""
    shrinks: tuple[Row, ...] = ()
    """Oldest first: `time`, `step` that is gone on from, `from` and `to` (batches), `facts` of the error."""


def read_shrinks(run: RunDir) -> Shrinks | None:
    """The record, or None if the run never shrank; StorageError if it cannot be understood."""
    return run.read_as(RECORD, Shrinks)
