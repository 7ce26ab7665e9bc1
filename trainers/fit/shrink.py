"""The next smaller micro-batch after an out-of-memory error, and how to say it. Pure.

The bound behind it (Surface, fit): memory above the persistent part S grows at most in proportion to the rows, so
a batch of share k of a failed one needs at least S + k (m - S), m being what the failed one needed. A size for
which that is above the budget is certain to fail and is skipped; the largest one left is tried.
"""

from __future__ import annotations

from jobs.admission import Factors
from jobs.errors import MemoryShortage
from jobs.units import size as told
from trainers.fit.sizes import Size, Surface

SHRINKS = 6
"""Smaller sizes that a run tries by itself, over its whole life."""


def smaller(factors: Factors, facts: MemoryShortage, fitted: Surface | None = None) -> Factors | None:
    """The largest smaller micro-batch that may fit, with the same global batch; None if none may.

    `facts` are of the error at `factors`; without them it is at most half. `fitted` is what fit measured of this
    model, if it did: then also the persistent bytes and the need of the failed size are known.
    """
    rows = factors.batch * factors.accumulation
    most = min(_admitted(factors.batch, facts, fitted), factors.batch - 1)
    batch = next((batch for batch in range(most, 0, -1) if rows % batch == 0), None)
    return None if batch is None else Factors(factors.workers, batch, rows // batch)


def missing(facts: MemoryShortage) -> int | None:
    """Bytes that the failed allocation lacked at the least; None if its allocator did not say."""
    budget = _budget(facts)
    if facts.asked is None or facts.used is None or budget is None:
        return None
    return max(facts.used + facts.asked - budget, 0) or None


def shrink_sentence(before: Factors, after: Factors, step: int) -> str:
    """What the run does now."""
    again = f"going on from step {step}" if step else "beginning again"
    return (
        f"{again} with batch {after.batch} x accumulation {after.accumulation} instead of batch {before.batch} x "
        f"accumulation {before.accumulation}, as that ran out of memory; the global batch stays {after.global_batch}"
    )


def end_sentence(factors: Factors, after: Factors | None, facts: MemoryShortage, limit_given: bool) -> str:
    """Why the run ends, the bytes that are missing, and two ways out.

    `after` is a smaller size that another start would take, None if there is none. `limit_given` is whether the
    spec limits the memory.
    """
    lacking = missing(facts)
    short = f" ({told(lacking)} are missing)" if lacking else ""
    what = f"training ran out of memory at batch {factors.batch}{short}"
    bptt = "bptt or " if facts.bptt else ""
    other = f"use a smaller {bptt}model under another name"
    if after is not None:
        return f"{what}, after {SHRINKS} smaller sizes; run it again to go on with batch {after.batch}, or {other}"
    return f"{what}, and no smaller batch can fit; {_more_memory(facts, limit_given)}, or {other}"


def _more_memory(facts: MemoryShortage, limit_given: bool) -> str:
    if limit_given:
        return "raise memory_limit_mib and run it again"
    return f"run it again on {'a GPU' if facts.device.startswith('cuda') else 'a machine'} with more free memory"


def _admitted(batch: int, facts: MemoryShortage, fitted: Surface | None) -> int:
    """The largest batch that the bound does not exclude; half where nothing is known."""
    budget = _budget(facts)
    needs: list[float] = []
    if facts.used is not None:
        needs.append(facts.used + (facts.asked or 0))
    if fitted is not None:
        needs.append(fitted.highest(Size(batch, facts.bptt)))
    if budget is None or not needs:
        return batch // 2
    need, persistent = max(needs), fitted.persistent if fitted is not None else 0.0
    if need <= persistent or need <= budget:
        return batch  # The budget as the allocator tells it did not bind: the size that failed says nothing more.
    return int(batch * max(0.0, (budget - persistent) / (need - persistent)))


def _budget(facts: MemoryShortage) -> int | None:
    """Bytes that the worker could have: what it used and what was left, never above the limit."""
    known = [facts.limit] if facts.limit is not None else []
    if facts.used is not None and facts.free is not None:
        known.append(facts.used + facts.free)
    return min(known, default=None)
