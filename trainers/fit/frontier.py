"""What the readings so far say of each bptt: its largest batch, its speed, and the next size worth running. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property

from trainers.fit.admissible import Proof
from trainers.fit.ceilings import Wall, ceiling, rounded
from trainers.fit.sizes import Decided, Known, Limits, Point, Reading, Size, Surface
from trainers.fit.solve import solve_clock, solve_surface

TARGETS = (0.5, 0.9, 1.0)
"""Shares of the room for growth that a climb aims at; the first only while there is a single reading."""
NEAR = 0.5
"""A target is passed over once this share of it was run: the step would be too small."""
TRUSTED = 0.85
"""Share of the room up to which the readings' surface and an estimate that agree may say what to run."""
TRUSTED_ALONE = 0.45
"""The same for the surface alone, where there is no estimate."""
LEASH = 1.3
"""How far, as a share of the room, even the worst moment that the readings allow may then lead."""
REACH = 2
"""How far beyond the bptts that were run the surface is believed."""
GROWTH = 1.02
"""A climb ends when the next batch is not larger by this factor."""
ENOUGH = 0.64
"""A bptt's speed is known once this share of its expected batch was run."""
OWN = 0.7
"""Weight of what was measured at a bptt itself against the time model."""


class Frontier:
    """A look at readings of which at least one fits; `walls` are sizes that were refused."""

    def __init__(
        self, limits: Limits, readings: Sequence[Reading], walls: Sequence[Wall], estimate: Surface | None
    ) -> None:
        passed = [r for r in readings if not r.failed]
        self._limits = limits
        self._estimate = estimate
        self._failed = [r.size for r in readings if r.failed]
        self._over = [r for r in passed if r.highest > limits.usable]
        self._walls = [*walls, *(Wall(size, "memory") for size in (*self._failed, *(r.size for r in self._over)))]
        self._passed = {r.size: r for r in passed}
        self.proof = Proof(passed)
        self.surface = solve_surface(passed, estimate)
        self.clock = solve_clock(passed)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The largest batch expected at each bptt that can be used, ascending."""
        known = [self._point(bptt) for bptt in self._limits.bptts]
        return tuple(point for point in known if point is not None)

    def run_at(self, bptt: int | None) -> Reading | None:
        """The reading of the largest batch at this bptt that fits and is not refused."""
        most, _ = self.ceiling(bptt)
        fitting = [
            r
            for r in self._passed.values()
            if r.size.bptt == bptt and r.highest <= self._limits.usable and (most is None or r.size.batch <= most)
        ]
        return max(fitting, key=lambda r: r.size.batch, default=None)

    def ceiling(self, bptt: int | None) -> tuple[int | None, Decided]:
        """The largest batch that may be tried at a bptt whatever its memory, and what says so."""
        return ceiling(self._limits, bptt, self._walls)

    @cache  # noqa: B019 - a look at readings lives for one question
    def proven(self, bptt: int | None) -> int:
        """The largest batch at a bptt that cannot exceed the limit; 0 if none is proven."""
        most, _ = self.ceiling(bptt)
        return self._usable(self.proof.largest_batch(bptt, self._limits.usable, most), most)

    def known(self, point: Point) -> bool:
        """Whether enough of the point's batch was run at its bptt for its speed to be trusted."""
        run = self.run_at(point.size.bptt)
        return run is not None and run.size.batch >= ENOUGH * point.size.batch

    def next_size(self, bptt: int | None) -> Size | None:
        """The next step of the climb at a bptt, which the readings prove to fit; None at its end."""
        most, _ = self.ceiling(bptt)
        run = self.run_at(bptt)
        best = run.size.batch if run else 0
        room = self._limits.usable - self.proof.base
        share = (run.highest - self.proof.base) / room if run and room > 0 else 0.0
        for target in TARGETS[1 if len(self._passed) > 1 else 0 :]:
            if share < NEAR * target or target == TARGETS[-1]:
                batch = self._step(bptt, target, most, best)
                if self._grows(batch, best, most) and Size(batch, bptt) not in self._passed:
                    return Size(batch, bptt)
        return None

    def _step(self, bptt: int | None, target: float, most: int | None, best: int) -> int:
        room = self._limits.usable - self.proof.base
        batch = self.proof.largest_batch(bptt, self.proof.base + target * room, most)
        if self._is_backed(bptt):
            batch = max(batch, self._trusted(bptt, room))
        failed = [size.batch for size in self._failed if Wall(size, "memory").stands_before(bptt)]
        if failed:
            batch = min(batch, (best + min(failed)) // 2)
        # What a size took that got through and left less than the reserve free says how many of its rows are too many.
        for reading in self._over:
            if reading.size.bptt == bptt:
                batch = min(batch, int(reading.size.batch * room / (reading.highest - self.proof.base)))
        return self._usable(batch if most is None else min(batch, most), most)

    def _trusted(self, bptt: int | None, room: float) -> int:
        """The batch that the readings' surface and the estimate both leave a margin for; 0 if they have no say."""
        budget = self.proof.base + (TRUSTED if self._estimate else TRUSTED_ALONE) * room
        surfaces = [replace(surface, fixed=0.0) for surface in (self.surface, self._estimate) if surface]
        batches = [surface.largest_batch(bptt, budget) for surface in surfaces]
        batch = min((batch for batch in batches if batch is not None), default=0)
        return self.proof.largest_batch(bptt, self.proof.base + LEASH * room, batch) if batch else 0

    def _is_backed(self, bptt: int | None) -> bool:
        """Whether several readings, at several bptts where there are several, lie around this bptt and none failed."""
        fitting = [r.size for r in self._passed.values() if r.highest <= self._limits.usable]
        steps = {size.bptt or 1 for size in fitting}
        several = len(steps) >= 2 or (len(self._limits.bptts) == 1 and len(fitting) >= 2)
        return several and not self._failed and min(steps) / REACH <= (bptt or 1) <= max(steps) * REACH

    def _usable(self, batch: int, most: int | None) -> int:
        if batch < self._limits.batch_min:
            return 0
        return batch if batch == most else rounded(batch, self._limits.batch_min)

    def settled(self, bptt: int | None, only_run: bool) -> Point | None:
        """The largest batch at a bptt that was run, or unless `only_run` a larger one that is proven; None if none."""
        run = self.run_at(bptt)
        batch = run.size.batch if run else 0
        batch = batch if only_run else max(batch, self.proven(bptt))
        return self._as_point(Size(batch, bptt), "bounded") if batch > 0 else None

    def _point(self, bptt: int | None) -> Point | None:
        """What the frontier is expected to be at a bptt; None if no batch at it can be used."""
        run, proven = self.run_at(bptt), self.proven(bptt)
        most, _ = self.ceiling(bptt)
        best = run.size.batch if run else 0
        if run and not self._grows(proven, best, most):
            return self._as_point(run.size, "measured")
        if proven == 0:
            return None
        by_surface = self.surface.largest_batch(bptt, self._limits.usable)
        batch = most if by_surface is None else by_surface if most is None else min(by_surface, most)
        size = Size(max(self._usable(batch or 0, most), proven), bptt)
        return self._as_point(size, "bounded" if size.batch <= proven else "inferred")

    def _grows(self, batch: int, best: int, most: int | None) -> bool:
        """Whether a batch is so much larger than the best one that was run that it is worth a probe."""
        return batch > best and (batch >= best * GROWTH or batch == most)

    def _as_point(self, size: Size, known: Known) -> Point:
        most, why = self.ceiling(size.bptt)
        return Point(
            size=size,
            bytes=self.highest(size),
            rate=self.rate(size),
            known="measured" if size in self._passed else known,
            limited_by=why if size.batch == most else "memory",
        )

    def highest(self, size: Size) -> float:
        """The high-water mark of a size: measured, or as the surface has it."""
        reading = self._passed.get(size)
        return float(reading.highest) if reading else self.surface.highest(size)

    def rate(self, size: Size) -> float:
        """Units per second at a size: the time model, drawn to what was measured at the same bptt."""
        modelled = self.clock.rate(size)
        run = self.run_at(size.bptt)
        if run is None or run.rate == 0 or modelled == 0:
            return modelled
        return modelled * float((run.rate / self.clock.rate(run.size)) ** OWN)
