"""How good the rates are that rules read off a range test: regret on real problems, `python -m tests.bench.lr`.

`[--seeds 3] [--steps 150] [--only TEXT] [--out FOLDER]`. Each problem (a recipe's task with an optimizer, shortened to
so many steps) is trained at every rate of a dense grid, from each seed; sweeps of the range test are made as the
product makes them, and every rule's rate is judged by the validation loss of the grid's nearest two rates, between
which it is interpolated over the logarithm. Regret = (loss - best) / (loss before training - best), at most 1.
Results are kept as JSON lines and never measured twice, so a bench that was ended goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from jobs.errors import LossNanError
from jobs.spec import JobSpec
from jobs.specfile import load_spec
from tests.bench.common import exit_code
from trainers import loop, task
from trainers.fit.probe_rig import Silent
from trainers.group import Alone
from trainers.lr.curve import Sweep, geometric
from trainers.lr.decide import USUAL, decide
from trainers.lr.rules import RULES
from trainers.lr.sweep import sweep
from trainers.session import Session
from trainers.task import Shard, load

FOLDER = Path.home() / ".cache" / "highwater" / "bench-lr"
GRID = geometric(1e-5, 10.0, 19)
"""Three rates to a decade."""
GOAL = 0.04
"""Mean regret that the rule which is taken may have."""
SMALL = ["workers=1", "memory_limit_mib=null", "schedule.kind=one-cycle", "layer_groups.frozen=0"]
TASKS = {
    "language": ["batch=8", "bptt=24", "model.embedding=64", "model.hidden=96", "data.max_size=2000"],
    "image": ["batch=64", "augment=null"],
    "tabular": ["batch=256"],
}
OPTIMIZERS = {
    "adamw": ["optimizer.kind=adamw"],
    "sgd momentum": ["optimizer={kind: sgd, momentum: 0.9}"],
    "sgd": ["optimizer={kind: sgd}"],
}


def problems(steps: int, seed: int) -> Iterator[tuple[str, JobSpec]]:
    """Nine problems as specs."""
    for name, changes in TASKS.items():
        for optimizer, kind in OPTIMIZERS.items():
            length = ["epochs=null", f"steps={steps}", f"seed={seed}", "learning_rate=1.0"]
            evaluation = ["evaluation={every_epochs: 1000}"]
            yield f"{name} {optimizer}", load_spec(name, [*SMALL, *changes, *kind, *length, *evaluation])


class Kept:
    """Results by key, in a file of JSON lines."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "results.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.rows: dict[str, Any] = dict(json.loads(line) for line in lines if line.endswith("]"))

    def get(self, key: str, measure: Callable[[], Any]) -> Any:
        """The result under the key, measured if it is not there."""
        if key not in self.rows:
            self.rows[key] = json.loads(json.dumps(measure()))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, self.rows[key]]) + "\n")
        return self.rows[key]


def shard_of(spec: JobSpec) -> Shard:
    """One worker on the CPU."""
    assert isinstance(spec.batch, int)
    return Shard(0, 1, spec.batch, spec.accumulation, torch.device("cpu"))


def trained(spec: JobSpec, data: Path, rate: float | None) -> float:
    """Validation loss after training at this rate, or before any; infinite where it broke."""
    spec = spec.model_copy(update={"learning_rate": rate or 1.0})
    session = Session(spec, load(spec, data, shard_of(spec)), shard_of(spec))
    try:
        if rate is None:
            loop.evaluate(session, Silent())
        else:
            loop.train(session, Silent())
    except LossNanError:
        return math.inf
    metrics = session.progress.metrics
    # A table's regression has no loss of its own among its metrics: its mean absolute error stands for it.
    found = metrics.get("loss", metrics.get("mae", math.inf))
    return found if math.isfinite(found) else math.inf


def regret(rate: float, losses: Sequence[float], before: float) -> float:
    """Of a rate, from the grid's losses: 0 at the best of them, 1 where nothing was learned or it broke."""
    best = min(losses)
    capped = [min(1.0, max(0.0, (loss - best) / (before - best))) if math.isfinite(loss) else 1.0 for loss in losses]
    place = math.log(rate / GRID[0]) / math.log(GRID[1] / GRID[0])
    if not 0 <= place <= len(GRID) - 1:
        return 1.0
    low = min(int(place), len(GRID) - 2)
    share = place - low
    return capped[low] * (1 - share) + capped[low + 1] * share


def sweeps(spec: JobSpec, data: Path, plans: Sequence[tuple[float, float, int]]) -> list[Sweep]:
    """Sweeps from other seeds."""
    return [
        sweep(spec, data, shard_of(spec), Alone(), geometric(*plan), number, lambda: None)
        for number, plan in enumerate(plans)
    ]


def judged(spec: JobSpec, data: Path, kept: Kept, key: str) -> dict[str, float]:
    """Regret of each rule and of the rate that would be taken, on one problem from one seed."""
    before = kept.get(f"{key} before", lambda: trained(spec, data, None))
    found = [kept.get(f"{key} at {rate:.3e}", lambda rate=rate: finite(trained(spec, data, rate))) for rate in GRID]
    losses = [math.inf if loss is None else loss for loss in found]
    full = [(1e-7, 10.0, 100)] * 3
    rows = kept.get(f"{key} sweeps", lambda: [one.to_json() for one in sweeps(spec, data, full)])
    made = [Sweep(tuple(r["rates"]), tuple(r["losses"]), r["ended"], r["seed"]) for r in rows]
    decision = decide(made, "minimum/4", spec.optimizer.kind)
    table = {name: regret(one.rate, losses, before) for name, one in decision.suggestions.items()}
    usual = regret(USUAL[spec.optimizer.kind], losses, before)
    return {name: table.get(name, 1.0) for name in RULES} | {
        "taken": regret(decision.rate, losses, before),
        "usual": usual,
    }


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--only", default="", help="problems whose name has this text")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where results are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept, table = Kept(options.out), list[dict[str, float]]()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, options.seeds + 1):
            for name, spec in problems(options.steps, seed):
                if options.only not in name:
                    continue
                data, began = Path(folder) / spec.task, time.monotonic()
                if not data.exists():
                    task.prepare(spec, data)
                row = judged(spec, data, kept, f"{name}, seed {seed}, {options.steps} steps")
                table.append(row)
                shown = "  ".join(f"{rule} {value:.3f}" for rule, value in row.items())
                print(f"{name}, seed {seed}: {shown}  ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"\n{len(table)} problems and seeds: regret, mean and worst")
    for rule in table[0]:
        values = [row[rule] for row in table]
        print(f"  {rule:12} {statistics.mean(values):.3f}  {max(values):.3f}")
    return exit_code(statistics.mean(row["taken"] for row in table) <= GOAL)


if __name__ == "__main__":
    sys.exit(main())
