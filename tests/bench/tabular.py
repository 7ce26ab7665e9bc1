"""Our network against scikit-learn's histogram booster on integer codes: air_time of all flights, split by time.

`python -m tests.bench.tabular [--seeds N] [--iterations N]`. Both train on the same rows, are tuned on the validation
rows that come after them, and are measured on the last tenth of the year. The booster gets integer codes of all columns
that are known before departure, or of the network's own columns and the parts of their dates, whichever is better on
validation rows; with squared and with absolute error, on the target and on its logarithm, at the number of trees that
is best there. Of its two losses, the one that is better on the test rows counts. The goal: our MAPE is at most 2 %
above the booster's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.errors import DataError
from jobs.spec_tabular import TabularSpec
from jobs.specfile import load_spec
from tests.bench.common import exit_code
from tests.bench.peers.environments import InstallError, Package, environment
from tests.led import finished
from trainers import datasets
from trainers.tables import categories, columns, dates, source, split, targets

PEER = Package("scikit-learn==1.9.1")
ALLOWED = 1.02
OURS = {
    "codes": ["carrier", "origin", "dest"],
    "numbers": ["distance", "sched_dep_time", "sched_arr_time"],
    "parts": ["weekday", "hour", "season_sin", "season_cos"],
}
ALL = {
    "codes": ["carrier", "tailnum", "origin", "dest"],
    "numbers": ["flight", "month", "day", "hour", "minute", "sched_dep_time", "sched_arr_time", "distance"],
    "parts": [],
}
BOTH = {
    "codes": ALL["codes"],
    "numbers": ["flight", "minute", *OURS["numbers"]],
    "parts": OURS["parts"],
}
INPUTS = {"ours": OURS, "integer codes": ALL, "both": BOTH}


def tables(spec: TabularSpec, folder: Path) -> Path:
    """The booster's inputs of each kind and the target, as .npz: codes are those of training, others are -1."""
    read = source.read(spec.data)
    table, _ = targets.with_target(read.table, spec.data)
    rows = split.split(table, spec.data.split)
    table = dates.expanded(table, spec.data.dates)
    parts = {n: table.take(pa.array(r)) for n, r in (("train", rows.training), ("valid", rows.validation))}
    parts["test"] = table.take(pa.array(rows.test))
    found: dict[str, Any] = {f"{name}_target": columns.floats(part, spec.data.target) for name, part in parts.items()}
    for kind, wanted in INPUTS.items():
        fitted = [categories.fitted(parts["train"], name, 1) for name in wanted["codes"]]
        numbers = [*wanted["numbers"], *(f"{spec.data.dates[0]}_{part}" for part in wanted["parts"])]
        for name, part in parts.items():
            read_columns = [one.codes(part) - 1.0 for one in fitted] + [columns.floats(part, one) for one in numbers]
            found[f"{name}_{kind}"] = np.stack(read_columns, axis=1).astype(np.float32)
    np.savez(folder / "flights.npz", **found)
    return folder / "flights.npz"


def booster(file: Path, seeds: int, iterations: int) -> dict[str, Any]:
    """For each loss, what was chosen on validation rows and its MAPE on test rows for each seed."""
    python = environment(PEER, datasets.cache_folder() / "bench-tabular")
    command = [str(python), str(Path(__file__).with_name("tabular_trees.py")), str(file), str(seeds), str(iterations)]
    # Threads that wait for each other actively take the cores from each other on a machine that does more.
    quiet = os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env=quiet, stdout=subprocess.PIPE, text=True, check=True, timeout=3600)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def network(folder: Path, seed: int) -> tuple[float, float, float]:
    """MAPE on validation rows, on test rows, and seconds of training, of the recipe's run with a seed."""
    spec = load_spec("tabular-full", [f"seed={seed}", f"storage={folder}"])
    run = finished(spec, f"seed-{seed}")
    result, shown = run.result(), run.read("examples.json")
    if result is None or shown is None:
        raise RuntimeError(f"{run.uri} has no result")
    return result.metrics["mape"], shown["test"]["metrics"]["mape"], result.seconds


def main() -> int:
    """Print the table and the ratio; 0 if the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=300, help="trees that the booster has at most")
    options = parser.parse_args()
    spec = load_spec("tabular-full")
    assert isinstance(spec, TabularSpec)
    with tempfile.TemporaryDirectory(prefix="highwater-bench-") as place:
        try:
            file = tables(spec, Path(place))
            ours = []
            for seed in range(1, options.seeds + 1):
                ours.append(network(Path(place) / "runs", seed))
                print(
                    f"network, seed {seed}: validation {ours[-1][0]:.4f}, test {ours[-1][1]:.4f}, {ours[-1][2]:.0f} s"
                )
            theirs = booster(file, options.seeds, options.iterations)
        except (DataError, InstallError) as error:
            print(error, file=sys.stderr)
            return 2
    return compared(ours, theirs)


def compared(ours: list[tuple[float, float, float]], theirs: dict[str, Any]) -> int:
    """Print both beside each other."""
    print(f"\n{'MAPE, mean over seeds':<44} validation    test")
    mean = statistics.mean(test for _, test, _ in ours)
    print(f"{'our network (recipe tabular-full)':<44} {statistics.mean(v for v, _, _ in ours):10.4f} {mean:7.4f}")
    for name, one in theirs.items():
        told = f"{PEER.name}, {name}: {one['input']}{', logarithm' if one['log'] else ''}, {one['trees']} trees"
        print(f"{told:<44} {one['valid']:10.4f} {statistics.mean(one['test']):7.4f}")
    best = min(statistics.mean(one["test"]) for one in theirs.values())
    print(f"\nour MAPE / the booster's best: {mean / best:.3f} (goal: at most {ALLOWED})")
    return exit_code(mean <= ALLOWED * best)


if __name__ == "__main__":
    sys.exit(main())
