"""The search over synthetic workloads whose truth is known: probes, trips, and how close it comes to the best.

`python -m tests.bench.fit_simulated [--workloads N] [--seed N]`. No model is run: memory is a maximum of several
moments, each linear in the rows, plus what the allocator rounds; time has noise of 3 %.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.bench.common import exit_code
from trainers.fit.ceilings import ceiling, rounded
from trainers.fit.search import Search
from trainers.fit.sizes import Choice, Limits, Reading, Size, Surface
from trainers.fit.solve import solve_surface

MIB = 2**20
BPTTS = (5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
BISECTION = 2**17


@dataclass(frozen=True)
class Workload:
    """A model, an optimizer and a machine, as far as memory and time show them."""

    limits: Limits
    persistent: float
    fixed: float
    other: float
    moments: tuple[tuple[float, float, float, float, float], ...]
    """Bytes above `persistent` at several moments: coefficients of 1, B, T, B T, B T^2."""
    clock: tuple[float, float, float, float]
    """Seconds: coefficients of 1, B, T, B T."""
    rounding: int
    noise: float
    estimate: Surface | None

    def peak(self, size: Size) -> int:
        """Bytes in forward and backward, as an allocator gives them out."""
        rows, steps = size.batch, size.bptt or 1
        grown = max(a + b * rows + c * steps + d * rows * steps + e * rows * steps**2 for a, b, c, d, e in self.moments)
        return -int(-(self.persistent + grown) // self.rounding) * self.rounding

    def highest(self, size: Size) -> int:
        """The true high-water mark."""
        return int(max(self.peak(size), self.fixed) + self.other)

    def seconds(self, size: Size) -> float:
        """The true time of a step."""
        rows, steps = size.batch, size.bptt or 1
        a, b, c, d = self.clock
        return a + b * rows + c * steps + d * rows * steps

    def rate(self, size: Size) -> float:
        """The true throughput."""
        return size.cells / self.seconds(size)

    def probe(self, size: Size, draw: random.Random) -> Reading:
        """What a probe would measure; a failure where the true mark exceeds the budget."""
        if self.highest(size) > self.limits.budget:
            return Reading(size, failed="can't allocate memory", persistent=int(self.persistent))
        return replace(self.reading(size), seconds=self.seconds(size) * draw.uniform(1 - self.noise, 1 + self.noise))

    def reading(self, size: Size) -> Reading:
        """The truth as a reading."""
        return Reading(
            size,
            persistent=int(self.persistent),
            fixed=int(self.fixed),
            peak=self.peak(size),
            other=int(self.other),
            seconds=self.seconds(size),
            units=size.cells,
        )

    def most(self, bptt: int | None, budget: float) -> int:
        """The largest batch whose true mark is within a budget and that the caps allow."""
        cap, _ = ceiling(self.limits, bptt, ())
        low, high = 0, BISECTION if cap is None else cap
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.highest(Size(middle, bptt)) <= budget else (low, middle - 1)
        if low < self.limits.batch_min:
            return 0
        return low if low == cap else rounded(low, self.limits.batch_min)

    def best(self) -> Size:
        """What the rule gives on the exhaustive grid under the same limit."""
        grid = [Size(self.most(b, self.limits.usable), b) for b in self.limits.bptts]
        grid = [size for size in grid if size.batch > 0]
        top = max(self.rate(size) for size in grid)
        return max((s for s in grid if self.rate(s) >= self.limits.throughput * top), key=lambda s: s.bptt or 0)


def workload(draw: random.Random, sequences: bool, estimated: bool, noise: float = 0.03) -> Workload:
    """One workload: some are tight, some have plenty of room, some are short of data, a third has attention."""
    budget = 2 ** draw.uniform(26, 36)
    persistent = budget * 2 ** draw.uniform(-6, -0.7)
    room = budget - persistent
    # At this size the room is full. Moments share its rows, time steps and their products out differently, but
    # nearly all memory belongs to a row's time step; what belongs to a time step alone is next to nothing.
    steps = draw.choice((16, 32, 64, 128, 256)) if sequences else 1
    rows = 2 ** draw.uniform(3, 11)
    moments = []
    attention = sequences and draw.random() < 0.3
    for _ in range(draw.randint(1, 4)):
        full = room * draw.uniform(0.3, 1.0)
        constant = full * draw.choice((0.0, draw.uniform(0, 0.1), draw.uniform(0, 0.4)))
        shares = [1.0, 0.0, 0.0, 0.0]
        if sequences:
            shares = [1.0, draw.expovariate(20), draw.expovariate(500), draw.expovariate(2) * attention]
        cell, row, step, square = (share / sum(shares) * (full - constant) for share in shares)
        moments.append((constant, row / rows, step / steps, cell / rows / steps, square / rows / steps**2))
    each = draw.uniform(0.2, 3)
    clock = (each * draw.choice((0.02, 0.2)), each * 0.1 / rows, each * draw.uniform(0, 1) / steps, each / rows / steps)
    limits = Limits(
        budget=int(budget),
        bptts=BPTTS if sequences else (None,),
        cells_max=int(rows * steps * draw.uniform(0.05, 1)) if draw.random() < 0.3 and sequences else None,
    )
    made = Workload(
        limits=limits,
        persistent=persistent,
        fixed=persistent + room * draw.uniform(0, 0.5),
        other=budget * draw.choice((0.0, 0.01)),
        moments=tuple(moments),
        clock=clock,
        rounding=draw.choice((512, 2**16)),
        noise=noise,
        estimate=None,
    )
    return replace(made, estimate=estimate(made, draw)) if estimated else made


def estimate(made: Workload, draw: random.Random) -> Surface:
    """Preflight's view: one surface through a few sizes near the limit, all of it wrong by -5 to +15 %."""
    lengths = (16, 64, 256) if len(made.limits.bptts) > 1 else (None,)
    full = [Size(max(1, made.most(bptt, made.limits.usable)), bptt) for bptt in lengths]
    sizes = full + [Size(max(1, size.batch // 2), size.bptt) for size in full]
    surface = solve_surface([made.reading(size) for size in sizes], square=len(lengths) > 1)
    off = draw.uniform(0.95, 1.15)
    terms = ("constant", "row", "step", "cell", "square")
    return replace(surface, **{name: off * getattr(surface, name) for name in terms})


@dataclass(frozen=True)
class Outcome:
    """How one search went."""

    made: Workload
    choice: Choice
    probes: int
    trips: int
    over: int
    """Sizes that were run above what the reserve leaves, and below the limit."""


def search(made: Workload, draw: random.Random) -> Outcome:
    """Run one search to its end."""
    finder = Search(made.limits, made.estimate)
    while (size := finder.ask()) is not None:
        finder.tell(made.probe(size, draw))
    readings = finder.readings
    over = sum(not r.failed and r.highest > made.limits.usable for r in readings)
    return Outcome(made, finder.choice(), len(readings), sum(bool(r.failed) for r in readings), over)


def outcomes(count: int, seed: int, sequences: bool, estimated: bool, noise: float = 0.03) -> Iterator[Outcome]:
    """Searches over workloads in which at least the smallest size fits."""
    draw = random.Random(seed)
    while count:
        made = workload(draw, sequences, estimated, noise)
        smallest = Size(1, made.limits.bptts[0])
        if (
            made.highest(smallest) <= made.limits.usable
            and made.most(None if not sequences else 5, 0.9 * made.limits.usable) >= 8
        ):
            yield search(made, draw)
            count -= 1


def share_of_maximum(outcome: Outcome) -> float:
    """The batch as a share of the largest that the whole budget holds at the same bptt, the reserve included."""
    made, size = outcome.made, outcome.choice.size
    return size.batch / max(1, made.most(size.bptt, made.limits.budget))


def share_of_speed(outcome: Outcome) -> float:
    """The true throughput as a share of what the exhaustive grid's answer has."""
    return outcome.made.rate(outcome.choice.size) / outcome.made.rate(outcome.made.best())


def places_off(outcome: Outcome) -> int:
    """How many candidates lie between the chosen bptt and the exhaustive grid's."""
    bptts = outcome.made.limits.bptts
    return abs(bptts.index(outcome.choice.size.bptt) - bptts.index(outcome.made.best().bptt))


def main() -> int:
    """Print the table; the goals are for searches that have an estimate, which is how fit runs them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workloads", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    met = True
    for sequences, estimated, noise in itertools.product((False, True), (True, False), (0.0, 0.03)):
        began = time.perf_counter()
        found = list(outcomes(options.workloads, options.seed, sequences, estimated, noise))
        row(found, sequences, estimated, noise, time.perf_counter() - began)
        met &= max(o.probes for o in found) <= 12
        if estimated:
            met &= sum(o.trips for o in found) == 0
            met &= min(share_of_speed(o) for o in found) >= 0.95 if sequences and noise == 0 else True
            met &= statistics.median(share_of_maximum(o) for o in found) >= 0.94
            met &= sequences or statistics.median(o.probes for o in found) <= 4
    return exit_code(met)


def row(found: list[Outcome], sequences: bool, estimated: bool, noise: float, seconds: float) -> None:
    """One line of the table."""
    probes = [o.probes for o in found]
    speeds = sorted(share_of_speed(o) for o in found)
    maxima = sorted(share_of_maximum(o) for o in found)
    off = [places_off(o) for o in found]
    errors = sorted(abs(o.choice.predicted / o.made.highest(o.choice.size) - 1) for o in found)
    print(
        f"{'batch x bptt' if sequences else 'batch':<13}{'estimate' if estimated else 'blind':<9}noise {noise:4.0%}  "
        f"probes {statistics.median(probes):4.1f} (most {max(probes):2})  trips {sum(o.trips for o in found):2}  "
        f"over {sum(o.over for o in found):3}  "
        f"of maximum {statistics.median(maxima):6.1%} (5 %: {maxima[len(maxima) // 20]:6.1%})  "
        f"speed {statistics.median(speeds):6.1%} (1 %: {speeds[len(speeds) // 100]:6.1%}, least {speeds[0]:6.1%})  "
        f"bptt exact {sum(o == 0 for o in off) / len(off):5.1%}, next {sum(o <= 1 for o in off) / len(off):6.1%}  "
        f"predicted 99 %: {errors[len(errors) * 99 // 100]:5.1%}  {seconds:4.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
