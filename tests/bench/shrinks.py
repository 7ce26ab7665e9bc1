"""Whether a run that runs out of memory while it trains learns the same as one that never did.

`python -m tests.bench.shrinks [--injections 50] [--seed 0]`. Small language models are trained with one and two
workers; at a random step of each, in a random part of it (forward, backward, optimizer, evaluation, save) and on a
random rank, the kernel refuses what torch's allocator asks for (RLIMIT_DATA is lowered in that process), until the
micro-batch is a random smaller one. Without dropout the curve may differ from the undisturbed one by rounding alone;
with dropout the masks differ, and the final metric must lie within the spread of undisturbed runs with other seeds.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import Reason
from jobs.rundir import RunDir
from jobs.spec import JobSpec
from tests.bench.common import exit_code
from tests.led import finished, in_child, lead, run_of
from tests.unit.starving import Hunger, Hungry, Moment
from tests.unit.tiny import DROPOUT, tiny_spec

GOAL = 1e-5
SPREAD = 2.5
"""Standard deviations around the mean of undisturbed seeds that a disturbed run may lie from it."""
SEEDS = 12
"""Undisturbed runs of a group; the deviation of five was wrong by a factor of two."""
ROWS = 8
STEPS = 60
MOMENTS: tuple[Moment, ...] = ("forward", "backward", "optimizer", "evaluation", "save")


@dataclass(frozen=True)
class Shrunk:
    """One disturbed run beside its undisturbed twin."""

    run: RunDir
    worst: float
    """The largest relative difference of a loss."""
    metric: float
    whole: bool
    """Whether it ended well, with the same global batch in every attempt and each step's row there once."""
    shrinks: int


def spec(folder: Path, workers: int, seed: int, dropout: float) -> JobSpec:
    model: dict[str, Any] = {"kind": "awd-lstm", "embedding": 16, "hidden": 16, "layers": 2}
    return tiny_spec(
        folder,
        model=model | dict.fromkeys(DROPOUT, dropout),
        batch=ROWS // workers,
        workers=workers,
        steps=STEPS,
        seed=seed,
        evaluation={"every_steps": 20},
        checkpointing={"every_steps": 7, "every_s": 1000.0},
    )


def losses(run: RunDir) -> list[float]:
    return [row["loss"] for row in run.rows("metrics") if row["kind"] == "step"]


def metric(run: RunDir) -> float:
    return float([row["metrics"]["perplexity"] for row in run.rows("metrics") if row["kind"] == "eval"][-1])


def disturb(asked: JobSpec, name: str, straight: RunDir, draw: random.Random) -> Shrunk:
    """Train it once more, short of memory at a random moment, in a child."""
    sizes = [size for size in (1, 2, 4) if size < ROWS // asked.workers]
    moment = draw.choice(MOMENTS)
    # An evaluation and a save must still come after the step.
    step = draw.randrange(0, STEPS if moment in ("evaluation", "save") else STEPS - 1)
    hunger = Hunger(step, draw.choice(sizes), moment, draw.randrange(asked.workers))
    os.waitpid(in_child(lambda: lead(asked, name, Hungry(hunger))), 0)
    run = run_of(asked, name)
    result, attempts = run.result(), run.attempts()
    steps = [row["step"] for row in run.rows("metrics") if row["kind"] == "step"]
    whole = (
        result is not None
        and result.reason is Reason.DONE
        and steps == list(range(1, STEPS + 1))
        and {one.batch * one.accumulation * one.workers for one in attempts} == {ROWS}
        and len(attempts) > 1
        and attempts[-1].batch <= hunger.fits
    )
    if not whole:
        print(f"{name}: {hunger} ended with {result.message if result else 'no result'}", flush=True)
        return Shrunk(run, float("inf"), float("inf"), False, len(attempts) - 1)
    worst = max(abs(a - b) / abs(a) for a, b in zip(losses(straight), losses(run), strict=True))
    return Shrunk(run, worst, metric(run), True, len(attempts) - 1)


def group(folder: Path, workers: int, dropout: float, count: int, draw: random.Random) -> bool:
    """Disturb so many runs; whether all of them did as well as the undisturbed ones."""
    specs = [spec(folder, workers, seed, dropout) for seed in range(SEEDS)]
    straight = [finished(one, f"straight-{workers}-{dropout}-{one.seed}") for one in specs]
    shrunk = [
        disturb(specs[n % SEEDS], f"shrunk-{workers}-{dropout}-{n}", straight[n % SEEDS], draw) for n in range(count)
    ]
    whole = sum(one.whole for one in shrunk)
    times = sum(one.shrinks for one in shrunk)
    text = f"{workers} worker(s), dropout {dropout}: {count} runs short of memory, {times} shrinks, {whole} whole"
    if dropout == 0:
        worst = max(one.worst for one in shrunk)
        print(f"{text}; losses differ by {worst:.1e} at most (goal: <= {GOAL:.0e})", flush=True)
        return whole == count and worst <= GOAL
    ends = [metric(run) for run in straight]
    mean, deviation = statistics.mean(ends), statistics.stdev(ends)
    low, high = mean - SPREAD * deviation, mean + SPREAD * deviation
    inside = sum(low <= one.metric <= high for one in shrunk)
    print(
        f"{text}; perplexity {min(o.metric for o in shrunk):.3f} to {max(o.metric for o in shrunk):.3f}, {inside} of "
        f"{count} within {low:.3f} to {high:.3f} (undisturbed {min(ends):.3f} to {max(ends):.3f}, goal: all)",
        flush=True,
    )
    return whole == count and inside == count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--injections", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments, ranks and sizes")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    began = time.monotonic()
    quarter, rest = divmod(options.injections, 4)
    counts = [quarter + (number < rest) for number in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        kinds = [(workers, dropout) for workers in (1, 2) for dropout in (0.0, 0.1)]
        met = [group(Path(folder), *kind, count, draw) for kind, count in zip(kinds, counts, strict=True) if count]
    print(f"{time.monotonic() - began:.0f} s")
    return exit_code(all(met))


if __name__ == "__main__":
    sys.exit(main())
