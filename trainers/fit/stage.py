"""The fit stage as the driver leads it: refuse the impossible, let the ranks search, keep what they found."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from jobs.rundir import RunDir
from jobs.spec import AUTO, JobSpec
from trainers.backend import Backend
from trainers.fit.limits import bptts_for
from trainers.fit.rank import FitJob
from trainers.fit.sizes import Size, Surface
from trainers.rank import prepared_data

log = logging.getLogger(__name__)
RECORD = "stages/fit.json"
MIB = 2**20


def stored(run: RunDir, spec: JobSpec) -> dict[str, Any] | None:
    """The stage's facts, if they hold for this spec: before training began, other workers need another search."""
    record = run.read(RECORD)
    if record is None:
        return None
    facts: dict[str, Any] = record["facts"]
    same = (facts["workers"], facts["accumulation"]) == (spec.workers, spec.accumulation)
    return facts if same or run.numbers("attempts/") else None


def with_sizes(spec: JobSpec, facts: dict[str, Any]) -> JobSpec:
    """The spec with what fit found in place of `auto`."""
    found = {name: facts[name] for name in ("batch", "bptt") if getattr(spec, name, None) == AUTO}
    return spec.model_copy(update=found)


def smallest_size(spec: JobSpec) -> Size:
    """The smallest size that the spec allows: what must fit at the very least. A batch can be cut into micro-steps."""
    return Size(1, bptts_for(spec)[0])


def preflight(spec: JobSpec, run: RunDir, tell: Callable[[str], None]) -> Surface | None:
    """What training will take, without running it; None if the model cannot be traced, as `tell` then hears.

    Raises OutOfMemoryError if not even the smallest size fits a declared limit: before any worker starts.
    """
    from trainers.fit.preflight import (  # slow to load, and only needed here
        UntraceableError,
        refuse_impossible,
        surface,
    )

    try:
        with prepared_data(run) as data:
            estimate = surface(spec, data)
            if spec.memory_limit_mib:
                refuse_impossible(spec, estimate, smallest_size(spec), spec.memory_limit_mib * MIB, data)
    except UntraceableError as error:  # What cannot be traced can still be measured.
        log.warning("preflight has no estimate", exc_info=True)
        instead = "fit begins with a small probe" if spec.wants_fit else "only training will show whether it fits"
        tell(f"{error.message}; {instead}")
        return None
    return estimate


def search(job: FitJob, spec: JobSpec, run: RunDir, backend: Backend, abort: Callable[[], bool]) -> dict[str, Any]:
    """Let the ranks search and write the stage's record; its facts."""
    began = time.time()
    found: dict[str, Any] = backend.run(job, spec, abort)
    size = Size(found["batch"], found["bptt"])
    run.finish_stage("fit", f"{size} per worker: {found['why']}", found, began=began)
    return found
