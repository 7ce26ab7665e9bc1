"""Specs of task `custom`: over the package in `tests/outside`, and over modules that a test writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.spec import JobSpec
from jobs.specfile import spec_from_json

OUTSIDE = Path(__file__).resolve().parents[1] / "outside"


def spirals(folder: Path, **changes: Any) -> JobSpec:
    """A run of a second, in which dropout and several evaluations and saves matter."""
    base: dict[str, Any] = {
        "task": "custom",
        "data": {"factory": "spirals.task:data", "options": {"rows": 400}},
        "model": {"factory": "spirals.task:model", "options": {"width": 16}},
        "metric": "accuracy",
        "goal": "max",
        "batch": 16,
        "learning_rate": 0.01,
        "epochs": 5,
        "runtime": {"packages": [str(OUTSIDE / "spirals")]},
        "storage": str(folder / "runs"),
        "checkpointing": {"every_steps": 10, "every_s": 1000.0},
    }
    return spec_from_json(base | changes)


def module(folder: Path, name: str, text: str) -> Path:
    """A module with this source; its name must be no other test's, as a process imports a name once."""
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    return path


def over(path: Path, storage: Path, **changes: Any) -> JobSpec:
    """A spec over the functions `data` and `model` of a module."""
    base: dict[str, Any] = {
        "task": "custom",
        "data": {"factory": f"{path.stem}:data"},
        "model": {"factory": f"{path.stem}:model"},
        "batch": 4,
        "learning_rate": 0.01,
        "epochs": 1,
        "runtime": {"packages": [str(path)]},
        "storage": str(storage / "runs"),
    }
    return spec_from_json(base | changes)


#: A linear model; what a test is about stands in place of each name in braces.
LINEAR = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 1)

    def forward(self, batch):
        x, y = batch
        loss = (self.line(x).squeeze(1) - y).square().mean()
        {forward}
        return {{"loss": loss, "error": loss.sqrt()}}

    {methods}

def data():
    x = torch.randn(40, 3)
    {data}
    return (x[:32], x[:32].sum(1)), (x[32:], x[32:].sum(1))

def model():
    {model}
    return Net()
"""


def linear(folder: Path, name: str, **parts: str) -> Path:
    """A module with a small model, and a test's own lines in `forward`, `methods`, `data` and `model`."""
    texts = dict.fromkeys(("forward", "methods", "data", "model"), "pass") | parts
    return module(folder, name, LINEAR.format(**texts))
