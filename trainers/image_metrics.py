"""What an evaluation adds up over batches and ranks, and the metrics of it: for one label per image, and for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

BINS, LARGEST = 256, 8.0
"""Scores of many labels are counted in so many bins between minus and plus this logit (0.03 % and 99.97 %)."""


class Scores(Protocol):
    """Sums of one evaluation: float64 [length], to be added over batches and ranks."""

    length: int

    def add(self, sums: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch's logits [rows, outputs] and labels to the sums, in place."""
        ...

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Metrics of the sums; where nothing was added, not a number."""
        ...


def scores(many: bool, outputs: int) -> Scores:
    """The sums for so many classes or labels."""
    return ManyLabels(outputs) if many else OneLabel(outputs)


class OneLabel:
    """The confusion matrix (row = true class, column = predicted), and the sum of cross-entropies."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.length = classes * classes + 1

    def add(self, sums: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count true against predicted classes."""
        logits = logits.double()
        pairs = labels * self.classes + logits.argmax(1)
        sums[:-1] += torch.bincount(pairs, minlength=self.classes * self.classes)
        sums[-1] += functional.cross_entropy(logits, labels, reduction="sum")

    def confusion(self, sums: Tensor) -> Tensor:
        """Counts [true, predicted]."""
        return sums[:-1].view(self.classes, self.classes)

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Accuracy, F1 as the mean over classes that occur or are predicted, and mean cross-entropy."""
        counts = self.confusion(sums)
        right, rows = counts.diagonal(), counts.sum()
        occurring = counts.sum(0) + counts.sum(1)
        f1 = 2 * right[occurring > 0] / occurring[occurring > 0]
        return {
            "accuracy": (right.sum() / rows).item(),
            "f1": f1.mean().item(),
            "loss": (sums[-1] / rows).item(),
        }


class ManyLabels:
    """Histograms of each label's logits where it is absent and where it is present, and the sum of cross-entropies."""

    def __init__(self, labels: int) -> None:
        self.labels = labels
        self.length = 2 * labels * BINS + 2

    def add(self, sums: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count logits in bins."""
        logits = logits.double()
        bins = ((logits + LARGEST) * (BINS / (2 * LARGEST))).floor().clamp(0, BINS - 1).long()
        label = torch.arange(self.labels, device=logits.device)
        places = (labels.long() * self.labels + label) * BINS + bins
        sums[:-2] += torch.bincount(places.flatten(), minlength=self.length - 2)
        sums[-2] += functional.binary_cross_entropy_with_logits(logits, labels.double(), reduction="sum")
        sums[-1] += labels.numel()

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """F1 at each label's best threshold and average precision, as means over labels that occur; mean loss.

        The thresholds are the best ones for these very images, so that F1 is a little better than for others.
        """
        present, wrong = self._above(sums)
        total = present[:, :1]
        known = total[:, 0] > 0
        f1 = _f1(present, wrong, total).amax(1)
        precision = present / (present + wrong).clamp(min=1)
        gained = present - functional.pad(present[:, 1:], (0, 1))
        average = (precision * gained).sum(1) / total[:, 0].clamp(min=1)
        return {
            "f1": f1[known].mean().item(),
            "average_precision": average[known].mean().item(),
            "loss": (sums[-2] / sums[-1]).item(),
        }

    def thresholds(self, sums: Tensor) -> Tensor:
        """The bin from which on each label is said to be present, where its F1 is best: int64 [labels].

        Of neighbouring bins that are all the best the middle one is the safest for other images.
        """
        present, wrong = self._above(sums)
        f1 = _f1(present, wrong, present[:, :1])
        best = f1 == f1.amax(1, keepdim=True)
        first = best.int().argmax(1)
        bins = torch.arange(BINS, device=sums.device)
        over = (~best & (bins > first.unsqueeze(1))).int()
        last = torch.where(over.any(1), over.argmax(1) - 1, BINS - 1)
        return (first + last) // 2

    def table(self, sums: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
        """JSON for each label: its threshold as a probability, precision, recall and F1 there, and its images."""
        chosen = self.thresholds(sums).unsqueeze(1)
        present, wrong = self._above(sums)
        total, right = present[:, 0], present.gather(1, chosen)[:, 0]
        said = right + wrong.gather(1, chosen)[:, 0]
        columns = {
            "threshold": torch.sigmoid(logit_of(chosen[:, 0])),
            "precision": right / said.clamp(min=1),
            "recall": right / total.clamp(min=1),
            "f1": 2 * right / (said + total).clamp(min=1),
        }
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [
            {"label": name} | dict(zip(columns, row, strict=True)) | {"rows": int(count)}
            for name, row, count in zip(names, rows, total.tolist(), strict=True)
        ]

    def _above(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Images with and without each label whose logit is in a bin or a higher one: twice [labels, BINS]."""
        counts = sums[:-2].view(2, self.labels, BINS).flip(2).cumsum(2).flip(2)
        return counts[1], counts[0]


def logit_of(bins: Tensor) -> Tensor:
    """The lowest logit of a bin."""
    return bins.double() * (2 * LARGEST / BINS) - LARGEST


def _f1(present: Tensor, wrong: Tensor, total: Tensor) -> Tensor:
    return 2 * present / (present + wrong + total).clamp(min=1)
