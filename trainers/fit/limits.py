"""From a spec and its data to what the search must keep to. Pure."""

from __future__ import annotations

from typing import Any

from jobs.errors import DataError
from jobs.spec import AUTO, JobSpec
from trainers.fit.sizes import Limits

#: Values of bptt that a search considers: about three to an octave where they are small and cheap to tell apart.
BPTTS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)


def limits_for(spec: JobSpec, facts: dict[str, Any], budget: int) -> Limits:
    """The limits of a spec over prepared data, on workers that have `budget` bytes each.

    Raises DataError if the data cannot fill the smallest batch of the shortest sequences.
    """
    batch = None if spec.batch == AUTO else spec.batch
    bptts = bptts_for(spec)
    smallest = (batch or 1) * (bptts[0] or 1)
    cells_max = cells_for(spec, facts, smallest)
    return Limits(
        budget=budget,
        reserve=spec.fit.reserve,
        batch_min=batch or 1,
        batch_max=batch or spec.fit.batch_max,
        bptts=tuple(b for b in bptts if cells_max is None or (b or 1) * (batch or 1) <= max(cells_max, smallest)),
        cells_max=cells_max,
        bptt_fixed=getattr(spec, "bptt", None) != AUTO,
        throughput=spec.fit.throughput,
        probes=spec.fit.probes,
    )


def bptts_for(spec: JobSpec) -> tuple[int | None, ...]:
    """The values of bptt that may be chosen, ascending."""
    bptt = getattr(spec, "bptt", None)
    if bptt != AUTO:
        return (bptt,)
    jitter = getattr(spec, "bptt_jitter", None)
    lowest = max(jitter.min_steps if jitter else 1, min(spec.fit.bptt_min, spec.fit.bptt_max))
    most = max(spec.fit.bptt_max, lowest)
    return tuple(sorted({lowest, most, *(b for b in BPTTS if lowest < b < most)}))


def cells_for(spec: JobSpec, facts: dict[str, Any], smallest: int) -> int | None:
    """Rows times time steps per worker that the data allows; DataError if not even the `smallest` can be filled."""
    units = facts.get("training_units")
    if units is None:
        return None
    together = spec.workers * spec.accumulation
    fillable = (int(units) - 1) // together
    if fillable < smallest:
        raise DataError(
            f"the training data has {units:,} {facts.get('unit', 'units')}, too few for {spec.workers} workers x "
            f"accumulation {spec.accumulation} x the smallest batch of {smallest}; use fewer workers or more data"
        )
    steps = 1 if spec.fit.batch_max else spec.fit.steps_per_epoch
    return max(smallest, fillable // steps)
