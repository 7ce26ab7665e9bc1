"""What it costs to make memory follow tensors (`trainers.memory.settle`): `python -m tests.bench.settle [--steps 30]`.

Each of a few small trainings runs in processes of its own, with and without, in turn; the median time of a step and
the ratio. A process is settled wherever a spec declares `memory_limit_mib` on a CPU.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORKLOADS = {
    "language, batch 8 x bptt 32": ("language", "batch=8", "bptt=32"),
    "language, batch 32 x bptt 32": ("language", "batch=32", "bptt=32"),
    "image 28 x 28, batch 64": ("image", "batch=64", "augment=null", "data.size=28"),
    "image 28 x 28, batch 256": ("image", "batch=256", "augment=null", "data.size=28"),
    "tabular, batch 512": ("tabular", "batch=512"),
}
PAIRS = 3
WARM = 3
"""Steps that are not counted."""


def measured(name: str, steps: int, settled: bool) -> float:
    """Median seconds of a step, in this very process, which must be fresh."""
    from trainers.memory import settle

    if settled:
        settle()
    import torch

    from jobs.specfile import load_spec
    from trainers import loop
    from trainers.session import Session
    from trainers.task import Shard, load, prepare

    torch.set_num_threads(1)
    recipe, *changes = WORKLOADS[name]
    spec = load_spec(recipe, [*changes, "workers=1", "learning_rate=0.001"])
    assert isinstance(spec.batch, int)
    shard = Shard(0, 1, spec.batch, 1, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        prepare(spec, Path(folder))
        session = Session(spec, load(spec, Path(folder), shard), shard)
        pending, times = loop.Pending(time.monotonic), list[float]()
        for step in itertools.islice((s for epoch in itertools.count() for s in session.task.steps(epoch, 0)), steps):
            began = time.perf_counter()
            loop.take_step(session, step, pending)
            pending.clear(1)
            times.append(time.perf_counter() - began)
    return statistics.median(times[WARM:])


def in_process(name: str, steps: int, settled: bool) -> float:
    """The same in a fresh process."""
    command = [sys.executable, "-m", "tests.bench.settle", "--steps", str(steps), "--one", name]
    command += ["--settled"] if settled else []
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--one", help="measure this training in this process, and print its seconds")
    parser.add_argument("--settled", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(measured(options.one, options.steps, options.settled))
        return 0
    for name in WORKLOADS:
        pairs = [[in_process(name, options.steps, settled) for settled in (False, True)] for _ in range(PAIRS)]
        plain, settled = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = sorted(after / before for before, after in pairs)
        ratio = f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{name:30} {plain:.4f} s, settled {settled:.4f} s: {ratio}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
