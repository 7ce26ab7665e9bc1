"""A real image run that takes a second: the bundled digits and a small network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jobs.spec_image import ImageSpec
from jobs.specfile import spec_from_json
from trainers.image import ImageTask, load, prepare
from trainers.task import Shard

CPU = torch.device("cpu")
CONVNET = {"kind": "convnet", "widths": [8, 16], "dropout": 0.2}


def image_document(folder: Path, **changes: Any) -> dict[str, Any]:
    """A spec over the digits; augmentation, dropout and batch norm are on, so that all state matters."""
    base: dict[str, Any] = {
        "task": "image",
        "data": {"source": "bundled:digits"},
        "model": CONVNET,
        "augment": {"cutout": 0.3, "brightness": 0.1},
        "batch": 16,
        "learning_rate": 0.01,
        "steps": 40,
        "evaluation": {"every_steps": 20},
        "storage": str(folder / "runs"),
        "checkpointing": {"every_steps": 5, "every_s": 1000.0},
    }
    return base | changes


def image_spec(folder: Path, **changes: Any) -> ImageSpec:
    spec = spec_from_json(image_document(folder, **changes))
    assert isinstance(spec, ImageSpec)
    return spec


def task_of(spec: ImageSpec, folder: Path, shard: Shard | None = None) -> ImageTask:
    if not (folder / "data").exists():
        prepare(spec, folder / "data")
    assert isinstance(spec.batch, int)
    return load(spec, folder / "data", shard or Shard(0, 1, spec.batch, spec.accumulation, CPU))
