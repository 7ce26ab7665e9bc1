"""The task's batches as the peers' data loaders want them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset

from trainers.task import Task


class Batches(IterableDataset[Any]):
    """The ordinary steps of an epoch, each a whole batch."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __iter__(self) -> Iterator[Any]:
        for step in self.task.steps(0, 0):
            yield step.micros[0]
