"""What a run does about an out-of-memory error in training: tell it, and record a smaller micro-batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import fields

from jobs.admission import Factors
from jobs.errors import HighwaterError, OutOfMemoryError
from jobs.rundir import RunDir
from jobs.shrinks import RECORD, Shrinks, read_shrinks
from jobs.spec import JobSpec
from trainers.fit.shrink import SHRINKS, end_sentence, shrink_sentence, smaller
from trainers.fit.sizes import Surface


def shrink(run: RunDir, spec: JobSpec, error: HighwaterError, step: int, event: Callable[..., None]) -> JobSpec:
    """The spec with the next smaller micro-batch and the same global batch, recorded so that no driver takes more.

    `error` is what ended training at the spec's size, `step` the one to go on from. Raises OutOfMemoryError with
    the run's last words if nothing smaller can fit, or if the run has shrunk often enough by itself; what a later
    start should take is recorded even then.
    """
    # Told as one value: a `step` of its own would count as this event's, and later attempts drop the rows after theirs.
    told = error if isinstance(error, OutOfMemoryError) else OutOfMemoryError(error.message)
    event("out_of_memory", told.message, facts=told.row())
    if not isinstance(spec.batch, int):
        raise error
    before = Factors(spec.workers, spec.batch, spec.accumulation)
    past = read_shrinks(run)
    shrinks = past.shrinks if past else ()
    after = smaller(before, told.facts, fitted(run))
    if after is not None:
        row = {"time": time.time(), "step": step, "from": before.batch, "to": after.batch, "facts": told.row()}
        run.write(RECORD, Shrinks(batch=after.batch, accumulation=after.accumulation, shrinks=(*shrinks, row)))
    if after is None or len(shrinks) >= SHRINKS:
        words = end_sentence(before, after, told.facts, limit_given=spec.memory_limit_mib is not None)
        raise OutOfMemoryError(words, told.facts) from error
    event("shrink", shrink_sentence(before, after, step), batch=after.batch, accumulation=after.accumulation)
    return spec.model_copy(update={"batch": after.batch, "accumulation": after.accumulation})


def fitted(run: RunDir) -> Surface | None:
    """The surface that fit measured for this run; None if there was no fit, or its record has no such numbers."""
    facts = (run.read("stages/fit.json") or {}).get("facts")
    surface = facts.get("surface") if isinstance(facts, dict) else None
    if not isinstance(surface, dict):
        return None
    known = {one.name: surface.get(one.name, 0.0) for one in fields(Surface)}
    usable = all(isinstance(value, int | float) and math.isfinite(value) and value >= 0 for value in known.values())
    return Surface(**known) if usable else None
