"""The data stage of an image run: pictures read, split and measured once, and kept with what a rank needs to know."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.errors import DataError
from jobs.spec import AUTO
from jobs.spec_image import ImageSpec
from trainers import image_net
from trainers.image_metrics import scores
from trainers.images.pictures import Labels, Pictures, Pixels, Rows, shortened
from trainers.images.read import origin, pictures
from trainers.rows import Order
from trainers.task import Shard

IMAGES, LABELS, TRAINING, VALIDATION = "images.npy", "labels.npy", "training.npy", "validation.npy"
RECORD, WEIGHTS = "images.json", "weights.pt"
CHUNK = 4096
"""Images that are looked at together."""


def prepare(spec: ImageSpec, out: Path) -> dict[str, Any]:
    """Write the pictures, their labels, the rows of both parts and what is known of them into `out`; return the facts.

    Each channel's mean and standard deviation are those of the training images alone. Raises DataError, SpecError or
    StorageError with one sentence.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        found, validation = pictures(spec.data, spec.labels == "many", spec.storage_endpoint, out / IMAGES)
        channels, size = found.images.shape[1:3]
        batch = 1 if spec.batch == AUTO else spec.batch
        Order(len(found.training), spec.seed, Shard(0, spec.workers, batch, spec.accumulation, _CPU), "images")
        image_net.try_out(spec.model, channels, size, len(found.classes))
        weights = image_net.pretrained(spec.model, channels, spec.storage_endpoint)
        facts = _facts(spec, found, validation)
        if not isinstance(found.images, np.memmap):
            np.save(out / IMAGES, found.images)
        for name, array in ((LABELS, found.labels), (TRAINING, found.training), (VALIDATION, validation)):
            np.save(out / name, array)
        if weights is not None:
            torch.save(weights, out / WEIGHTS)
        (out / RECORD).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"prepared data cannot be written to {out} ({error.strerror}); check space and rights"
        ) from error
    return facts | {"message": message(facts)}


_CPU = torch.device("cpu")


def _facts(spec: ImageSpec, found: Pictures, validation: Rows) -> dict[str, Any]:
    mean, std = statistics(found.images, found.training)
    many = spec.labels == "many"
    return {
        "source": origin(spec.data),
        "source_sha256": digest(found),
        "images": len(found.training) + len(validation),
        "training_images": len(found.training),
        "validation_images": len(validation),
        "training_units": len(found.training),
        "unit": "images",
        "channels": found.images.shape[1],
        "size": found.images.shape[2],
        "labels": spec.labels,
        "classes": list(found.classes),
        "mean": mean,
        "std": std,
        "unreadable": list(found.unreadable),
        "baseline": baseline(found.labels, found.training, validation, len(found.classes)),
        "baseline_name": "a model that says each label as often as it occurs"
        if many
        else "a model that always says the most frequent class",
    }


def statistics(images: Pixels, rows: Rows) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over these images, of pixels from 0 to 1.

    The deviation is at least one step of a byte, so that a channel that is constant can be divided by it.
    """
    count = np.zeros((images.shape[1], 256), dtype=np.int64)
    for first in range(0, len(rows), CHUNK):
        chunk = images[rows[first : first + CHUNK]]
        count += np.stack([np.bincount(chunk[:, channel].reshape(-1), minlength=256) for channel in range(len(count))])
    share, values = count / count.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ values
    variance = share @ values**2 - mean**2
    return mean.tolist(), np.sqrt(np.maximum(variance, 1 / 255**2)).tolist()


def baseline(labels: Labels, training: Rows, validation: Rows, outputs: int) -> dict[str, float]:
    """Metrics on the validation images of a model that knows how often each class is, and nothing else."""
    many = labels.ndim == 2
    trained = labels[training]
    if many:
        share = (trained.sum(0) + 1) / (len(trained) + 2)
        logits = np.log(share / (1 - share))
    else:
        share = np.bincount(trained, minlength=outputs) + 1
        logits = np.log(share / share.sum())
    measured = scores(many, outputs)
    sums = torch.zeros(measured.length, dtype=torch.float64)
    for first in range(0, len(validation), CHUNK):
        known = torch.from_numpy(labels[validation[first : first + CHUNK]])
        measured.add(sums, torch.from_numpy(logits).expand(len(known), -1), known)
    return measured.metrics(sums)


def digest(found: Pictures) -> str:
    """sha256 over all pixels and labels, in order."""
    total = hashlib.sha256(np.ascontiguousarray(found.labels).tobytes())
    for first in range(0, len(found.images), CHUNK):
        total.update(np.ascontiguousarray(found.images[first : first + CHUNK]).tobytes())
    return total.hexdigest()


def message(facts: dict[str, Any]) -> str:
    """The facts that decide what can be learned, in one sentence."""
    of, reached = "classes", f"is right for {facts['baseline'].get('accuracy', 0):.1%}"
    if facts["labels"] == "many":
        of, reached = "labels", f"reaches F1 {facts['baseline']['f1']:.2f}"
    colours = "grey" if facts["channels"] == 1 else "colour"
    skipped = facts["unreadable"]
    return (
        f"{facts['source']}: {facts['training_images']:,} training images ({colours}, {facts['size']} x "
        f"{facts['size']} pixels) of {len(facts['classes']):,} {of}, {facts['validation_images']:,} held out; "
        f"{facts['baseline_name']} {reached}"
        + (f"; {len(skipped):,} unreadable skipped: {shortened(skipped)}" if skipped else "")
    )
