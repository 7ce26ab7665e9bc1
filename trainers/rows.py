"""Rows of a data set in random order: which of them each micro-step of each rank takes. Pure.

An epoch is a new permutation of all rows, cut into global batches; what does not fill the last one waits for another
epoch. Every step has the same shape then, and the order is the same for every world size.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from jobs.errors import DataError
from trainers.task import Carry, Shard, Step

RESIDENT = 0.25
"""Share of a GPU's memory that a set may take; a larger one stays in the host's, and batches are copied."""


@dataclass(frozen=True)
class Order:
    """The order in which one rank takes the rows of its training set."""

    rows: int
    seed: int
    shard: Shard
    unit: str = "rows"
    """What a row is called in sentences: `rows`, `images`."""

    def __post_init__(self) -> None:
        if self.rows < self.shard.global_batch:
            shard = self.shard
            raise DataError(
                f"the training data has {self.rows:,} {self.unit}, and one step needs {shard.global_batch:,} (batch "
                f"{shard.batch} x workers {shard.workers} x accumulation {shard.accumulation}); lower batch, or give "
                "more data"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return self.rows // self.shard.global_batch

    def indices(self, epoch: int, step: int, micro: int) -> Tensor:
        """Rows that this rank takes in a micro-step: int64 [batch], on the CPU."""
        first, part = step * self.shard.global_batch, self.shard.rows(micro)
        return _permutation(self.rows, mixed(self.seed, epoch))[first + part.start : first + part.stop]

    def generator(self, epoch: int, step: int, micro: int) -> torch.Generator:
        """Randomness for a micro-step's rows alone (augmentation, masks), on the CPU: the same for any world size."""
        group = micro * self.shard.workers + self.shard.rank
        return torch.Generator().manual_seed(mixed(self.seed, epoch, step, group))


class RowTask(ABC):
    """What tasks have in common whose data are rows, all of one shape, and that carry nothing from step to step."""

    order: Order
    shard: Shard

    @abstractmethod
    def micro(self, epoch: int, step: int, micro: int) -> Any:  # noqa: ANN401 - the task's own type
        """This rank's batch of a micro-step."""

    def steps_in_epoch(self, epoch: int) -> int:  # noqa: ARG002 - the Protocol's
        """Optimizer steps of one epoch."""
        return self.order.steps

    def steps(self, epoch: int, start: int) -> Iterator[Step]:
        """The steps of an epoch from number `start` on, in an order drawn anew for each epoch."""
        for step in range(start, self.order.steps):
            micros = tuple(self.micro(epoch, step, micro) for micro in range(self.shard.accumulation))
            yield Step(micros, self.shard.global_batch)

    def rehearsal(self) -> Iterator[Step]:
        """The first step: all are of one shape."""
        yield next(self.steps(0, 0))

    def carries(self) -> list[Carry]:
        """Nothing is carried."""
        return [() for _ in range(self.shard.accumulation)]


def mixed(*numbers: int) -> int:
    """One seed of several numbers; those of neighbours have nothing in common."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def evaluated(rows: int, shard: Shard) -> Iterator[slice]:
    """This rank's share of the rows to evaluate, in order, `batch` at a time: all ranks together take each once."""
    for first in range(shard.rank * shard.batch, rows, shard.workers * shard.batch):
        yield slice(first, min(first + shard.batch, rows))


def home(device: torch.device, size: int) -> torch.device:
    """Where a set of so many bytes lies: on the device, unless it would take too much of a GPU's memory."""
    if device.type == "cuda" and size > RESIDENT * torch.cuda.get_device_properties(device).total_memory:
        return torch.device("cpu")
    return device


@lru_cache(maxsize=2)
def _permutation(rows: int, seed: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
