"""Optimizers, and the averaging of NT-ASGD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from jobs.spec import Optimizer


def build_optimizer(
    optimizer: Optimizer, rate: float, groups: Sequence[Sequence[nn.Parameter]], rate_factor: float = 1.0
) -> torch.optim.Optimizer:
    """The spec's optimizer over layer groups, those nearest to the input first.

    Each param group has its own `factor` on the rate: `rate_factor` to the power of its distance from the output.
    """
    if rate_factor == 1:
        params = [{"params": [p for group in groups for p in group], "factor": 1.0}]
    else:
        factors = [rate_factor**distance for distance in reversed(range(len(groups)))]
        params = [{"params": list(g), "factor": f} for g, f in zip(groups, factors, strict=True) if g]
    if optimizer.kind == "adamw":
        return torch.optim.AdamW(
            params, lr=rate, betas=optimizer.betas, eps=optimizer.eps, weight_decay=optimizer.weight_decay
        )
    return torch.optim.SGD(params, lr=rate, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay)


def should_average(history: Sequence[float], goal: Literal["min", "max"], trigger: int) -> bool:
    """Whether the newest metric is worse than the best one of more than `trigger` evaluations ago.

    The non-monotone trigger of NT-ASGD (Merity et al. 2017, algorithm 1).
    """
    earlier = history[: -trigger - 1]
    if not earlier:
        return False
    return history[-1] > min(earlier) if goal == "min" else history[-1] < max(earlier)


class Averager:
    """The mean of the weights since averaging began; nothing before that."""

    def __init__(self) -> None:
        self._mean: AveragedModel | None = None

    @property
    def active(self) -> bool:
        """Whether averaging has begun."""
        return self._mean is not None

    def start(self, model: nn.Module) -> None:
        """Begin to average with the weights of the next step."""
        self._mean = AveragedModel(model)

    def update(self, model: nn.Module) -> None:
        """Take the weights after a step into the mean."""
        if self._mean is not None:
            self._mean.update_parameters(model)

    def evaluated(self, model: nn.Module) -> nn.Module:
        """The model to evaluate: the mean once there is one."""
        if self._mean is None or int(self._mean.n_averaged) == 0:
            return model
        averaged: nn.Module = self._mean.module
        return averaged

    def state_dict(self) -> dict[str, torch.Tensor] | None:
        """The mean and its count, or None before averaging began."""
        return None if self._mean is None else self._mean.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor] | None, model: nn.Module) -> None:
        """Go on from a saved mean."""
        if state is None:
            self._mean = None
        else:
            self._mean = AveragedModel(model)
            self._mean.load_state_dict(state)
