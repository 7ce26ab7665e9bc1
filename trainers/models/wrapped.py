"""The network inside whatever wraps it for training: DistributedDataParallel, a mean of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def unwrapped(model: nn.Module, kind: type[M]) -> M:
    """The network of this kind, or the one inside a wrapper; TypeError if it is neither."""
    inner = model if isinstance(model, kind) else getattr(model, "module", model)
    if not isinstance(inner, kind):
        raise TypeError(f"{type(inner).__name__} is not a {kind.__name__}")
    return inner


@contextmanager
def evaluating(model: nn.Module, kind: type[M]) -> Iterator[M]:
    """The network inside a wrapper, in evaluation mode and without gradients; the mode of every part is restored."""
    inner = unwrapped(model, kind)
    modes = {module: module.training for module in inner.modules()}
    inner.eval()
    try:
        with torch.no_grad():
            yield inner
    finally:
        for module, training in modes.items():
            module.training = training
