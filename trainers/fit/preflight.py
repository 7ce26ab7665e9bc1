"""What training will take, before any memory is asked for: four steps on fake tensors, and a surface through them.

It refuses what cannot fit, gives the search its first guess and `highwater plan` its answers. It admits nothing:
only what has run is known to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from jobs.errors import DataError, MemoryShortage, OutOfMemoryError
from jobs.spec import AUTO, JobSpec
from trainers import bptt
from trainers.fit import advice
from trainers.fit.sizes import Size, Surface
from trainers.fit.trace import Target, Trace, trace

MIB = 2**20
OTHER_GPU = 600 * MIB
"""What no tensor accounts for on a GPU: the context, the code of kernels, workspaces of cuBLAS. A usual figure."""
LENGTHS = (3, 3, 5, 7)
"""Time steps of the traced points: few, as each costs Python's time, and not below 3, where a recurrence has begun and
ended but not yet gone on."""
CELLS = 4096
CELLS_GPU = 32768
"""Rows times time steps of the traced points where the spec says none. A GPU takes more logits at a time, and its
sizes are larger."""
MIDDLE = 64
"""A bptt in the middle of those that fit considers."""
CERTAIN = 0.87
"""Share of an estimate below which no measured high-water mark has been seen: the rest may be the estimate's error."""


PARTS = ("weights", "gradients", "optimizer", "buckets", "data", "carries", "logits")
"""What bytes are, and `other` and `activations` behind them."""


@dataclass(frozen=True)
class Preflight:
    """What a spec takes at any size: at every moment of a step memory is a surface, and the highest one counts."""

    stretches: dict[str, Surface]
    """A surface for each stretch of the step that is the highest at some size."""
    last: Trace
    """A traced point, for what the bytes are."""
    extra: int
    """Time steps that jitter may add to bptt."""

    @property
    def persistent(self) -> float:
        """Bytes that are held between two steps, and what no tensor accounts for."""
        one = next(iter(self.stretches.values()))
        return one.persistent + one.other

    def highest(self, size: Size) -> float:
        """Bytes at the highest moment of training at this size."""
        return self.surface(size).highest(size)

    def surface(self, near: Size) -> Surface:
        """The surface of the stretch that is the highest at this size: right near it, below the mark far away."""
        return self.stretches[self._stretch(near)]

    def largest_batch(self, steps: int | None, budget: float) -> int | None:
        """The largest batch whose mark is within the budget; 0 if none is, None if every one is."""
        found = [one.largest_batch(steps, budget) for one in self.stretches.values()]
        return min((batch for batch in found if batch is not None), default=None)

    def parts(self, size: Size) -> dict[str, float]:
        """What the bytes of the mark at this size are, in the order of PARTS."""
        name, highest = self._stretch(size), self.highest(size)
        surface = self.stretches[name]
        by_optimizer = highest <= surface.other + surface.fixed
        known = self.last.fixed.parts if by_optimizer else self.last.stretches[name].parts
        share = size.batch * ((size.bptt or 1) + self.extra) / self.last.size.cells
        scale = {"carries": size.batch / self.last.size.batch, "logits": min(1.0, share)}
        parts = {part: known.get(part, 0) * scale.get(part, 1.0) for part in PARTS} | {"other": surface.other}
        parts["activations"] = max(0.0, highest - sum(parts.values()))
        return {part: count for part, count in parts.items() if count >= 1}

    def _stretch(self, size: Size) -> str:
        return max(self.stretches, key=lambda name: self.stretches[name].highest(size))


def surface(spec: JobSpec, data: Path) -> Surface:
    """The high-water mark of one worker over sizes, best near the spec's own size, or where its limit is reached."""
    found = preflight(spec, data)
    steps = getattr(spec, "bptt", None)
    size = Size(1 if spec.batch == AUTO else spec.batch, MIDDLE if steps == AUTO else steps)
    if spec.batch == AUTO:
        limit = spec.memory_limit_mib
        within = found.largest_batch(size.bptt, limit * MIB) if limit else None
        size = Size(max(1, within or found.last.size.cells // (size.bptt or 1)), size.bptt)
    return found.surface(size)


def preflight(spec: JobSpec, data: Path, target: Target | None = None) -> Preflight:
    """Trace four points of about as many cells as the spec's own size and solve for the surfaces.

    `bptt` in them is the spec's, jitter's longest sequence included. Where a model holds a limited number of logits
    at a time, sizes of far fewer cells are said to need more than they do. Raises DataError if the data fills no size.
    """
    target = target or Target.of(spec)
    extra = extra_steps(spec)
    cells = _cells(spec, extra, target)
    while True:
        try:
            traces = [trace(spec, data, size, target) for size in _points(cells, hasattr(spec, "bptt"))]
            break
        except DataError:
            if cells <= max(LENGTHS):
                raise
            cells //= 2
    return Preflight(_stretches(traces, extra, OTHER_GPU if target.gpu else 0), traces[-1], extra)


def extra_steps(spec: JobSpec) -> int:
    """Time steps that a sequence may have beyond bptt."""
    return bptt.longest(0, getattr(spec, "bptt_jitter", None)) if hasattr(spec, "bptt") else 0


def exactly(spec: JobSpec, data: Path, size: Size, target: Target | None = None) -> tuple[float, float]:
    """The high-water mark at this very size and the tensors' bytes between two steps, from one traced point."""
    target = target or Target.of(spec)
    longest = None if size.bptt is None else size.bptt + extra_steps(spec)
    point = trace(spec, data, Size(size.batch, longest), target)
    return point.highest + (OTHER_GPU if target.gpu else 0), float(point.persistent)


def _cells(spec: JobSpec, extra: int, target: Target) -> int:
    steps = getattr(spec, "bptt", None)
    if spec.batch == AUTO or steps == AUTO:
        return CELLS_GPU if target.gpu else CELLS
    return spec.batch * ((steps or 1) + extra)


def _points(cells: int, sequences: bool) -> list[Size]:
    if not sequences:
        return [Size(max(1, cells)), Size(max(2, 2 * cells))]
    # Half of the cells in one point, so that rows and cells can be told apart.
    return [
        Size(max(1, cells // (length * share)), length) for length, share in zip(LENGTHS, (2, 1, 1, 1), strict=True)
    ]


def _stretches(traces: list[Trace], extra: int, other: float) -> dict[str, Surface]:
    """A surface for each stretch that no other one is above everywhere."""
    names = set.intersection(*(set(one.stretches) for one in traces))
    found = {name: solve(traces, [one.stretches[name].highest for one in traces], extra, other) for name in names}
    kept: dict[str, Surface] = {}
    for name in sorted(found, key=lambda name: (astuple(found[name]), name), reverse=True):
        if not any(_below(found[name], other) for other in kept.values()):
            kept[name] = found[name]
    return kept


def _below(one: Surface, other: Surface) -> bool:
    return all(mine <= theirs for mine, theirs in zip(astuple(one), astuple(other), strict=True))


def solve(traces: Sequence[Trace], peaks: Sequence[float], extra: int = 0, other: float = 0.0) -> Surface:
    """The surface through the traced points' peaks, none of them above it. Pure.

    `extra` time steps are added to a size's bptt. Memory that grows with the square of bptt is taken for real only
    if it is more than a hundredth of the growth: a rounding error times 512 squared would be no small one.
    """
    persistent = max(one.persistent - one.carries for one in traces)
    fixed = max(one.fixed.highest - one.carries for one in traces)
    rows = np.array([one.size.batch for one in traces], dtype=float)
    steps = np.array([one.size.bptt or 1 for one in traces], dtype=float)
    grown = np.array(peaks, dtype=float) - persistent
    columns = [np.ones_like(rows), rows]
    if any(one.size.bptt for one in traces):
        columns += [rows * steps, rows * steps**2]
    found = _not_negative(columns, grown)
    if len(found) == 4 and found[3] * columns[3].max() < 0.01 * grown.max():
        found = _not_negative(columns[:3], grown)
    solved = np.stack(columns[: len(found)], axis=1) @ np.array(found)
    constant, row, cell, square = [*found, 0.0, 0.0][:4]
    return Surface(
        persistent=float(persistent),
        fixed=float(fixed),
        other=other,
        constant=constant + max(0.0, float((grown - solved).max())),
        row=row + cell * extra + square * extra**2,
        cell=cell + 2 * square * extra,
        square=square,
    )


def _not_negative(columns: list[np.ndarray], values: np.ndarray) -> list[float]:
    """Least squares with coefficients that are not negative: what is below 0 is 0, and the others are solved anew."""
    used = list(range(len(columns)))
    while used:
        scale = np.array([columns[i].max() for i in used])
        found = np.linalg.lstsq(np.stack([columns[i] for i in used], axis=1) / scale, values, rcond=None)[0] / scale
        if (found >= 0).all():
            return [float(found[used.index(i)]) if i in used else 0.0 for i in range(len(columns))]
        used = [i for i, value in zip(used, found, strict=True) if value >= 0]
    return [0.0] * len(columns)


def refuse_impossible(spec: JobSpec, estimate: Surface, size: Size, budget: int, data: Path | None = None) -> None:
    """OutOfMemoryError, with the bytes missing and two ways out, if this size surely exceeds the budget.

    Sure is what even CERTAIN of the estimate says, or the bytes between two steps, which are exact. With `data` (what
    the data stage prepared) the size itself is traced before it is refused, and so is every way out.
    """
    needed = estimate.highest(size)
    if not _exceeds(estimate.persistent, needed, budget):
        return
    ways = advice.raised(needed, spec.fit.reserve)
    if data is not None:
        needed, persistent = exactly(spec, data, size)
        if not _exceeds(persistent, needed, budget):
            return
        target = Target.of(spec)
        found = advice.ways_out(
            spec,
            size,
            target,
            usable=budget * (1 - spec.fit.reserve),
            held=persistent,
            needed=cache(lambda changed: exactly(changed.spec, data, changed.size, target)[0]),
            most=2,
        )
        ways = [*found, *ways]
    facts = MemoryShortage(asked=int(needed), limit=budget, batch=size.batch, bptt=size.bptt)
    raise OutOfMemoryError(advice.refusal(size, needed, budget, ways), facts)


def _exceeds(persistent: float, needed: float, budget: float) -> bool:
    return persistent > budget or CERTAIN * needed > budget
