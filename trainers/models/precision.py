"""Autocast for the fused operations that it does not know how to cast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def lower_precision(device: torch.device) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yields the cast to autocast's dtype, and keeps autocast itself out of the block.

    Without autocast the cast is the identity. A fused call (LSTM, loss) gets all its arguments in one
    dtype this way, whatever rules the installed torch has for it.
    """
    if not torch.is_autocast_enabled(device.type):
        yield lambda tensor: tensor
        return
    dtype = torch.get_autocast_dtype(device.type)
    with torch.autocast(device.type, enabled=False):
        yield lambda tensor: tensor.to(dtype)
