"""How ranks talk: alone, or over torch.distributed. The only part of training that knows there are others."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

Op = Literal["sum", "max"]


class Group(Protocol):
    """The ranks of one run. Every method but the properties is collective: all ranks call it, in the same order."""

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        ...

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as one whose backward pass averages gradients over ranks."""
        ...

    def reduce(self, values: torch.Tensor, op: Op = "sum") -> torch.Tensor:
        """The element-wise sum or maximum over ranks, the same on each; `values` is left alone."""
        ...


class Alone:
    """A group of one: single-process training, tests and bare GPU machines."""

    rank = 0
    world_size = 1

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model itself."""
        return model

    def reduce(self, values: torch.Tensor, op: Op = "sum") -> torch.Tensor:  # noqa: ARG002 - the Protocol's
        """The values themselves."""
        return values.clone()


class Distributed:
    """The default process group of torch.distributed, which the caller has set up (Ray Train, torchrun)."""

    def __init__(self, device: torch.device) -> None:
        """`device` is where this rank computes: what the process group's backend can reduce."""
        self.device = device
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model in DistributedDataParallel."""
        # DDP regroups its buckets after the first backward pass, and a ring all-reduce of three or more
        # ranks sums an element in an order that depends on its place in the bucket. A resumed process
        # would then differ in the last bits at its first step. Looking for unused parameters keeps the
        # buckets as they are; on a GPU, where no bit-equality is promised, speed comes first.
        return DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=self.device.type == "cpu" and self.world_size > 2,
        )

    def reduce(self, values: torch.Tensor, op: Op = "sum") -> torch.Tensor:
        """All-reduce of a copy, which lies on this rank's device."""
        total = values.to(self.device, copy=True)
        dist.all_reduce(total, dist.ReduceOp.SUM if op == "sum" else dist.ReduceOp.MAX)
        return total
