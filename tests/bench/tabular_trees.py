"""The booster's side of `tests.bench.tabular`, run in an environment that has scikit-learn: FILE SEEDS ITERATIONS."""

from __future__ import annotations

import json
import sys
from itertools import islice
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

LOSSES = ("squared_error", "absolute_error")
LEAVES, RATE = (31, 63, 15, 7), 0.1
Arrays = dict[str, Any]


def mape(said: Any, true: Any) -> float:
    """Mean relative error."""
    return float(np.mean(np.abs(said - true) / true))


def trained(arrays: Arrays, setting: dict[str, Any], iterations: int, seed: int) -> HistGradientBoostingRegressor:
    """A booster fitted to the training rows."""
    model = HistGradientBoostingRegressor(
        loss=setting["loss"], max_leaf_nodes=setting["leaves"], learning_rate=RATE, max_iter=iterations,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    target = arrays["train_target"]
    return model.fit(arrays[f"train_{setting['input']}"], np.log(target) if setting["log"] else target)


def errors(model: HistGradientBoostingRegressor, arrays: Arrays, part: str, setting: dict[str, Any]) -> Any:
    """MAPE on a part of the rows after each tree, one by one."""
    for said in model.staged_predict(arrays[f"{part}_{setting['input']}"]):
        yield mape(np.exp(said) if setting["log"] else said, arrays[f"{part}_target"])


def validated(arrays: Arrays, setting: dict[str, Any], iterations: int) -> dict[str, Any]:
    """The setting with the number of trees that is best on validation rows, and its MAPE there."""
    found = list(errors(trained(arrays, setting, iterations, 1), arrays, "valid", setting))
    tried = setting | {"valid": min(found), "trees": int(np.argmin(found)) + 1}
    print(tried, file=sys.stderr, flush=True)
    return tried


def best(arrays: Arrays, loss: str, inputs: list[str], seeds: int, iterations: int) -> dict[str, Any]:
    """The setting of a loss that is best on validation rows, with its MAPE on test rows for each seed."""
    few = [{"loss": loss, "input": kind, "log": log, "leaves": LEAVES[0]} for kind in inputs for log in (True, False)]
    tried = [validated(arrays, setting, iterations) for setting in few]
    more = [min(tried, key=lambda one: one["valid"]) | {"leaves": leaves} for leaves in LEAVES[1:]]
    tried += [validated(arrays, setting, iterations) for setting in more]
    chosen = min(tried, key=lambda one: one["valid"])
    tests = []
    for seed in range(1, seeds + 1):
        model = trained(arrays, chosen, chosen["trees"], seed)
        tests.append(next(islice(errors(model, arrays, "test", chosen), chosen["trees"] - 1, None)))
    return chosen | {"test": tests}


def main() -> None:
    """Print the best of each loss as JSON."""
    file, seeds, iterations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    arrays = dict(np.load(file))
    found = {loss: best(arrays, loss, ["integer codes", "ours", "both"], seeds, iterations) for loss in LOSSES}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
