"""What the data stage found in a table, for people and for the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from jobs.spec_tabular import Classification, Regression, TabularData
from trainers.tables import disguise
from trainers.tables.categories import UNKNOWN
from trainers.tables.columns import floats
from trainers.tables.prepared import Layout, Part
from trainers.tables.roles import Roles
from trainers.tables.scores import RegressionScore, Score, score_for
from trainers.tables.source import Source
from trainers.tables.split import Split

PORTION = 65_536
"""Rows that the trivial model is measured on at a time."""
NAMED = 4
"""Columns that the message names at most of each kind."""


@dataclass(frozen=True)
class Table:
    """A table that is split and prepared, with what was decided on the way."""

    source: Source
    dropped: int
    """Rows without a target."""
    split: Split
    roles: Roles
    layout: Layout
    parts: dict[str, Part]


def facts(table: Table, training: pa.Table, objective: Regression | Classification) -> dict[str, Any]:
    """The stage's facts as JSON, without the message. `training` are the training rows as they were read."""
    baseline, name = baseline_of(table, objective)
    split, parts = table.split, table.parts
    return {
        "source": table.source.name,
        "source_sha256": table.source.sha256,
        "rows": len(split.training) + len(split.validation) + len(split.test),
        "training_rows": len(split.training),
        "validation_rows": len(split.validation),
        "test_rows": len(split.test),
        "training_units": len(split.training),
        "unit": "rows",
        "split": split.how,
        "rows_without_target": table.dropped,
        "target": table.layout.target,
        "classes": len(table.layout.classes) or None,
        "columns_inferred": table.roles.inferred,
        "categorical": {
            one.column: {"categories": one.cardinality, "unseen_share": share}
            for one, share in zip(table.layout.categories, unseen(parts["valid"]), strict=True)
        },
        "continuous": [one.column for one in table.layout.numeric],
        "missing_shown": [one.column for one in table.layout.numeric if one.indicator],
        "left_out": table.roles.left_out,
        "gives_target_away": in_disguise(table, training),
        "targets_out_of_range": out_of_range(table.parts["train"], objective),
        "baseline": baseline,
        "baseline_name": name,
    }


def unseen(validation: Part) -> list[float]:
    """For each column of categories, the share of validation rows whose category training did not learn."""
    return [float((validation.codes[:, column] == UNKNOWN).mean()) for column in range(validation.codes.shape[1])]


def out_of_range(training: Part, objective: Regression | Classification) -> int:
    """Training rows whose target no prediction can reach, because the spec bounds them."""
    if not isinstance(objective, Regression) or objective.y_range is None:
        return 0
    low, high = objective.y_range
    targets = training.targets.astype(np.float64)
    return int(((targets < low) | (targets > high)).sum())


def in_disguise(table: Table, training: pa.Table) -> list[str]:
    """Columns that alone tell the target of nearly all training rows."""
    part, numeric = table.parts["train"], table.layout.scale is not None
    rows = disguise.looked_at(len(part.targets))
    targets = part.targets[rows]
    found = []
    for column, one in enumerate(table.layout.categories):
        codes = part.codes[rows, column].astype(np.int64)
        if numeric:
            tells = disguise.category_tells_number(codes, targets.astype(np.float64))
        else:
            tells = disguise.category_tells_class(codes, targets.astype(np.int64))
        found += [one.column] if tells else []
    for other in table.layout.numeric:
        values = floats(training, other.column)[rows]
        if numeric:
            tells = disguise.number_tells_number(values, targets.astype(np.float64))
        else:
            tells = disguise.number_tells_class(values, targets.astype(np.int64))
        found += [other.column] if tells else []
    return found


def baseline_of(table: Table, objective: Regression | Classification) -> tuple[dict[str, float], str]:
    """Metrics over validation rows of the model that sees no column, and what it is called."""
    score, training = score_for(objective, table.layout), table.parts["train"].targets
    if isinstance(score, RegressionScore):
        mean, numbers = objective.metric in ("rmse", "r2"), training.astype(np.float64)
        value = float(np.mean(numbers) if mean else np.median(numbers))
        constant = torch.from_numpy(score.scale.to(np.array([[value]])))
        name = f"a model that always says {value:.4g}, the {'mean' if mean else 'median'} of training"
    else:
        counts = np.bincount(training.astype(np.int64), minlength=len(table.layout.classes))
        constant = torch.from_numpy(np.log(counts / counts.sum())[None])
        name = "a model that only knows how frequent each class is"
    return score.metrics(_summed(score, constant, torch.from_numpy(table.parts["valid"].targets))), name


def _summed(score: Score, constant: Tensor, targets: Tensor) -> Tensor:
    """The score's sums of a model that gives the same outputs [1, outputs] for each row, some rows at a time."""
    portions = [targets[first : first + PORTION] for first in range(0, len(targets), PORTION)]
    return torch.stack([score.sums(constant.expand(len(portion), -1), portion) for portion in portions]).sum(0)


def message(facts: dict[str, Any], data: TabularData) -> str:
    """The facts that decide what can be learned, in one sentence; what should make one wonder follows."""
    columns = f"{len(facts['categorical'])} categorical and {len(facts['continuous'])} continuous columns"
    how = " chosen by what they hold" if facts["columns_inferred"] else ""
    said = [
        f"{facts['source'] or data.factory}: {facts['training_rows']:,} training rows, "
        f"{facts['validation_rows']:,} for validation ({facts['split']}); {facts['target']} from {columns}{how}"
    ]
    if facts["rows_without_target"]:
        said.append(f"{facts['rows_without_target']:,} rows without {facts['target']} dropped")
    if facts["left_out"]:
        said.append("left out: " + _listed([f"{name} ({why})" for name, why in facts["left_out"].items()]))
    often = {name: c["unseen_share"] for name, c in facts["categorical"].items() if c["unseen_share"] >= 0.01}
    if often:
        shares = sorted(often.items(), key=lambda item: -item[1])
        said.append("rare or unseen in validation: " + _listed([f"{name} {share:.0%}" for name, share in shares]))
    if facts["targets_out_of_range"]:
        said.append(f"{facts['targets_out_of_range']:,} training targets lie outside objective.y_range")
    if facts["gives_target_away"]:
        said.append(
            f"WARNING: {_listed(facts['gives_target_away'])} alone tells {facts['target']} almost exactly: "
            "take it out if it is not known when the model is used"
        )
    return "; ".join(said)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
