"""What an image model does, for the report: which classes it confuses, and where it is surest and wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from trainers.image_metrics import ManyLabels, OneLabel, logit_of
from trainers.images.pictures import Pixels

MISTAKES, SIDE = 24, 96
"""Pictures of mistakes at most, and pixels of their longer side at most."""
CLASSES = 100
"""Classes that a confusion matrix names at most; the ones with the fewest mistakes are one together."""
NONE = "none of them"

Mistake = tuple[int, str, str, float]
"""Row, true and predicted name, and how sure the model was."""


def of_one_label(
    scores: OneLabel, sums: Tensor, logits: Tensor, labels: Tensor, classes: Sequence[str]
) -> tuple[dict[str, Any], list[Mistake]]:
    """The report's JSON but for the pictures, and the surest mistakes, the surest first."""
    sure, predicted = torch.softmax(logits.double(), 1).max(1)
    wrong = _surest(torch.where(predicted != labels, sure, -1.0))
    mistakes = [(row, classes[int(labels[row])], classes[int(predicted[row])], float(sure[row])) for row in wrong]
    return {"confusion": confusion(scores.confusion(sums), classes)}, mistakes


def of_many_labels(
    scores: ManyLabels, sums: Tensor, logits: Tensor, labels: Tensor, classes: Sequence[str]
) -> tuple[dict[str, Any], list[Mistake]]:
    """The same for images with many labels; how sure the model was, of the label that it got most wrong."""
    thresholds = logit_of(scores.thresholds(sums))
    predicted, given = logits >= thresholds, labels.bool()
    chance = torch.sigmoid(logits.double())
    sure = torch.where(predicted, chance, 1 - chance)
    wrong = _surest(torch.where(predicted != given, sure, -1.0).amax(1))
    mistakes = [
        (
            row,
            _listed(given[row], classes),
            _listed(predicted[row], classes),
            float(sure[row][predicted[row] != given[row]].max()),
        )
        for row in wrong
    ]
    return {"labels": scores.table(sums, classes)}, mistakes


def with_pictures(mistakes: Sequence[Mistake], pixels: Sequence[Pixels]) -> list[dict[str, Any]]:
    """The mistakes as JSON, each with its picture."""
    return [
        {"image": png(image), "true": true, "predicted": predicted, "confidence": round(sure, 4)}
        for (_, true, predicted, sure), image in zip(mistakes, pixels, strict=True)
    ]


def confusion(counts: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """{"classes": names, "counts": rows of true, columns of predicted}; of very many classes, those with mistakes."""
    if len(classes) > CLASSES:
        mistakes = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
        kept = mistakes.argsort(descending=True, stable=True)[: CLASSES - 1].sort().values
        others = torch.ones(len(classes), dtype=torch.bool, device=counts.device)
        others[kept] = False
        counts = torch.cat([counts[kept], counts[others].sum(0, keepdim=True)])
        counts = torch.cat([counts[:, kept], counts[:, others].sum(1, keepdim=True)], 1)
        classes = [*(classes[i] for i in kept.tolist()), f"{len(classes) - len(kept):,} other classes"]
    return {"classes": list(classes), "counts": counts.long().tolist()}


def png(pixels: Pixels) -> str:
    """An image [channels, height, width] as a PNG in base64, made smaller if it is large."""
    image = Image.fromarray(pixels[0]) if len(pixels) == 1 else Image.fromarray(pixels.transpose(1, 2, 0))
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _surest(sure: Tensor) -> list[int]:
    """Rows of the highest values, those below 0 left out."""
    order = sure.argsort(descending=True, stable=True)[:MISTAKES]
    return [row for row in order.tolist() if sure[row] >= 0]


def _listed(present: Tensor, classes: Sequence[str]) -> str:
    names = [name for name, here in zip(classes, present.tolist(), strict=True) if here]
    return ", ".join(names) or NONE
