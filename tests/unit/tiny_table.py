"""A real tabular run that takes a second: a generated table and a small network."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from jobs.spec_tabular import TabularSpec
from jobs.specfile import spec_from_json
from trainers.tabular import TabularTask, load, prepare
from trainers.task import Shard

CPU = torch.device("cpu")
REGRESSION = {"kind": "regression", "metric": "mae"}
CLASSES = {"kind": "classification", "metric": "f1"}
START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
TIME_SPLIT = {"kind": "time", "column": "when"}


def columns(rows: int = 600) -> dict[str, list[Any]]:
    """Prices of houses by city, kind, size and age, the same ones each time; every ninth size is missing."""
    draw = np.random.default_rng(3)
    city, kind = draw.integers(0, 12, rows), draw.integers(0, 3, rows)
    size, age = draw.uniform(40, 200, rows), draw.uniform(0, 90, rows)
    price = 1000 + 5 * size + 40 * city - 2 * age + 60 * (kind == 1) + draw.normal(0, 5, rows)
    return {
        "when": [START + datetime.timedelta(hours=6 * row) for row in range(rows)],
        "city": [f"city {c}" for c in city],
        "kind": [("flat", "house", "hut")[k] for k in kind],
        "size": [None if row % 9 == 4 else float(s) for row, s in enumerate(size)],
        "age": age.tolist(),
        "price": price.tolist(),
        "dear": [bool(p > 1750) for p in price],
    }


def table(folder: Path, change: dict[str, list[Any]] | None = None, rows: int = 600) -> Path:
    """The table as a Parquet file, some columns replaced or added; None in place of one takes it out."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: values for name, values in (columns(rows) | (change or {})).items() if values is not None}
    pq.write_table(pa.table(found), folder / "houses.parquet")
    return folder / "houses.parquet"


def table_document(folder: Path, **changes: Any) -> dict[str, Any]:
    """A spec over that table; dropout, masks and batch norm are on, so that all state matters.

    `data` and `model` are merged into the defaults.
    """
    source = folder / "houses.parquet"
    data = {"source": str(source if source.exists() else table(folder)), "target": "price", "ignore": ["dear"]}
    data |= {"mask_share": 0.05, "split": TIME_SPLIT} | changes.pop("data", {})
    model = {"kind": "mlp", "layers": [16, 8], "dropout": 0.1, "dropout_embedding": 0.1} | changes.pop("model", {})
    base: dict[str, Any] = {
        "task": "tabular",
        "data": {name: value for name, value in data.items() if value is not None},
        "model": model,
        "objective": REGRESSION,
        "batch": 16,
        "learning_rate": 0.02,
        "steps": 60,
        "evaluation": {"every_steps": 20},
        "storage": str(folder / "runs"),
        "checkpointing": {"every_steps": 5, "every_s": 1000.0},
    }
    return base | changes


def table_spec(folder: Path, **changes: Any) -> TabularSpec:
    spec = spec_from_json(table_document(folder, **changes))
    assert isinstance(spec, TabularSpec)
    return spec


def task_of(spec: TabularSpec, folder: Path, shard: Shard | None = None) -> TabularTask:
    if not (folder / "data").exists():
        prepare(spec, folder / "data")
    assert isinstance(spec.batch, int)
    return load(spec, folder / "data", shard or Shard(0, 1, spec.batch, spec.accumulation, CPU))


# What a user might bring: factories for specs


def houses(rows: int = 600, give: Any = None) -> Any:
    """A factory of data: the table, or something else that is asked for."""
    return pa.table(columns(rows)) if give is None else give


class Sum(nn.Module):
    """A network that adds up what it reads."""

    def __init__(self, cardinalities: list[int], continuous: int, outputs: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(count, outputs) for count in cardinalities)
        self.line = nn.Linear(continuous, outputs)

    def forward(self, codes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        total = self.line(values)
        for column, one in enumerate(self.tables):
            total = total + one(codes[:, column])
        return total

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [list(self.tables.parameters()), list(self.line.parameters())]


def network(cardinalities: list[int], continuous: int, outputs: int, none: bool = False, more: int = 0) -> Any:
    """A factory of networks: one that fits, or one with too many outputs, or no network at all."""
    if none:
        return "no network"
    return Sum(cardinalities, continuous, outputs + more)
