"""From a command to its first training step, against the smallest Ray Train script that takes one.

`python -m tests.bench.startup [--pairs 5]` runs both in turn, two CPU workers each, and prints the
median of the ratios pair by pair. The machine's speed drifts; a ratio within a pair does not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.storage import open_store
from jobs.rundir import RunDir

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = """
import os, sys, time
import ray, torch
from ray.train import ScalingConfig, RunConfig
from ray.train.torch import TorchTrainer, prepare_model

def loop(config):
    model = prepare_model(torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(4, 8)).square().mean().backward()
    optimizer.step()
    open(config["mark"] + str(ray.train.get_context().get_world_rank()), "w").write(str(time.time()))

TorchTrainer(loop, train_loop_config={"mark": sys.argv[1]}, scaling_config=ScalingConfig(num_workers=2),
             run_config=RunConfig(storage_path=sys.argv[2])).fit()
"""


def smallest(folder: Path) -> float:
    """Seconds from the start of the smallest script to the end of its first step on the slower rank."""
    script, mark = folder / "smallest.py", folder / "mark"
    script.write_text(SMALLEST, encoding="utf-8")
    began = time.time()
    command = [sys.executable, str(script), str(mark), str(folder / "ray")]
    subprocess.run(command, env=environment(), capture_output=True, check=True, timeout=300)
    return max(float(Path(f"{mark}{rank}").read_text()) for rank in range(2)) - began


def ours(folder: Path) -> float:
    """Seconds from `highwater run language` to the end of its first step, which both ranks took."""
    began = time.time()
    command = [str(Path(sys.executable).with_name("highwater")), "run", "language", "--set", "steps=2", "--name", "x"]
    # What would be looked for has no counterpart in the script.
    command += ["--set", "batch=10", "--set", "bptt=35", "--set", "learning_rate=0.01"]
    command += ["--set", "evaluation.every_steps=1", "--storage", str(folder / "runs"), "--json"]
    subprocess.run(command, env=environment(), capture_output=True, check=True, timeout=300)
    rows = RunDir(open_store(str(folder / "runs")), "x").rows("metrics")
    first: float = rows[0]["time"]
    return first - began


def environment() -> dict[str, str]:
    """The same for both: no telemetry, no token that one of them leaves for the other."""
    return os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    ratios: list[float] = []
    for pair in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            kinds = [smallest, ours] if pair % 2 == 0 else [ours, smallest]
            taken = {kind.__name__: kind(Path(folder)) for kind in kinds}
        ratios.append(taken["ours"] / taken["smallest"])
        print(
            f"pair {pair + 1}: smallest {taken['smallest']:.1f} s, highwater {taken['ours']:.1f} s, {ratios[-1]:.2f}x"
        )
    print(f"start-up: median {statistics.median(ratios):.2f}x of the smallest Ray Train script (goal: <= 1.3x)")


if __name__ == "__main__":
    main()
