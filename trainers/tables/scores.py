"""How good predictions are: sums that add up over batches and ranks, and metrics of the sums."""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from jobs.spec_tabular import Classification, Regression
from trainers.tables.prepared import Layout
from trainers.tables.targets import Scale

Goal = Literal["min", "max"]
RISING = {"r2", "accuracy", "f1", "auc"}
"""Metrics that are better the higher they are."""
BINS, WIDEST = 8192, 20.0
"""For the area under the curve, log odds are sorted into so many bins between -WIDEST and WIDEST."""


class Score(Protocol):
    """Measures a network's outputs against targets as they are in the table."""

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """float64 sums of some rows."""
        ...

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Metrics of the summed parts; those that are not defined for these rows are left out."""
        ...


def goal(metric: str) -> Goal:
    """Whether lower or higher is better."""
    return "max" if metric in RISING else "min"


def score_for(objective: Regression | Classification, layout: Layout) -> Score:
    """The score of an objective."""
    if isinstance(objective, Regression):
        if layout.scale is None:
            raise TypeError("a regression needs the scale of its target")
        return RegressionScore(layout.scale)
    return ClassificationScore(len(layout.classes))


class RegressionScore:
    """Root mean square, mean and relative error, and the share of the variance that is explained."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale

    def predictions(self, outputs: Tensor) -> Tensor:
        """Numbers as they are in the table, float64 [rows], of a network's outputs [rows, 1]."""
        normal = outputs.double().squeeze(1) * self.scale.std + self.scale.mean
        return normal.clamp(max=700.0).exp() if self.scale.log else normal

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of rows, absolute, squared and relative errors, rows with a relative error, and targets (float64 [7])."""
        targets = targets.double()
        errors = (self.predictions(outputs) - targets).abs()
        relative = targets != 0
        centred = targets - (math.exp(self.scale.mean) if self.scale.log else self.scale.mean)
        rows = torch.full_like(errors[:1].sum(), len(errors))
        shares = torch.where(relative, errors / torch.where(relative, targets, 1.0).abs(), 0.0)
        parts = [rows, errors.sum(), errors.square().sum(), shares.sum(), relative.double().sum()]
        return torch.stack([*parts, centred.sum(), centred.square().sum()])

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """`rmse` and `mae` in the target's units; `mape` as a share, over targets that are not 0; `r2`."""
        rows, absolute, squared, shares, relative, total, squares = sums.tolist()
        found = {"rmse": math.sqrt(squared / rows), "mae": absolute / rows}
        if relative:
            found["mape"] = shares / relative
        spread = squares - total**2 / rows
        return found | ({"r2": 1 - squared / spread} if spread > 0 else {})


class ClassificationScore:
    """Accuracy, mean surprise and macro F1; for two classes also the area under the ROC curve."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def predictions(self, outputs: Tensor) -> Tensor:
        """The most likely class of each row."""
        return outputs.argmax(1)

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of rows, surprise in nats; per class hits, predictions and rows; for two the log odds' histograms."""
        targets, said = targets.long(), self.predictions(outputs)
        nats = functional.cross_entropy(outputs.double(), targets, reduction="sum")
        rows = torch.full_like(nats, len(targets))
        each = [self._count(labels) for labels in (targets[said == targets], said, targets)]
        histogram = [self._odds(outputs, targets)] if self.classes == 2 else []
        return torch.cat([torch.stack([rows, nats]), *each, *histogram])

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """`accuracy`, `log_loss` in nats, `f1`: the mean over the classes that occur; `auc` where it is defined."""
        rows, nats = sums[:2].tolist()
        hits, said, true = sums[2 : 2 + 3 * self.classes].view(3, self.classes)
        occurs = said + true > 0
        f1 = (2 * hits / (said + true).clamp(min=1))[occurs].mean()
        found = {"accuracy": float(hits.sum()) / rows, "log_loss": nats / rows, "f1": float(f1)}
        if self.classes == 2 and bool((true > 0).all()):
            negative, positive = sums[2 + 3 * self.classes :].view(2, BINS)
            below = negative.cumsum(0) - negative / 2
            found["auc"] = float((positive * below).sum() / (negative.sum() * positive.sum()))
        return found

    def _count(self, labels: Tensor) -> Tensor:
        return torch.bincount(labels, minlength=self.classes).double()

    def _odds(self, outputs: Tensor, targets: Tensor) -> Tensor:
        odds = (outputs[:, 1] - outputs[:, 0]).double().clamp(-WIDEST, WIDEST)
        bins = ((odds + WIDEST) * ((BINS - 1) / (2 * WIDEST))).round().long()
        return torch.bincount(targets * BINS + bins, minlength=2 * BINS).double()
