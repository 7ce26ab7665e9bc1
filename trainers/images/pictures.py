"""What every reader of images gives: pixels, labels, names of classes, and the split if the source has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.errors import DataError

Pixels = NDArray[np.uint8]
"""[n, channels, height, width]."""
Rows = NDArray[np.int64]
Labels = NDArray[Any]
"""int64 [n], or uint8 0 and 1 [n, labels]."""


@dataclass(frozen=True)
class Pictures:
    """All images of a source in a fixed order. Only rows of `training` and `validation` are used."""

    images: Pixels
    labels: Labels
    classes: tuple[str, ...]
    training: Rows
    validation: Rows | None = None
    """None where the source has no validation part of its own."""
    unreadable: tuple[str, ...] = ()
    """Names of images that were skipped."""


def checked(pictures: Pictures, source: str, many: bool) -> Pictures:
    """The pictures, if an image model can be trained on them; DataError with one sentence if not."""
    if len(pictures.training) == 0:
        raise DataError(f"{source} has no images to train on; put some into it")
    if many != (pictures.labels.ndim == 2):
        has, wants = ("one label", "many") if many else ("a list of labels", "one")
        raise DataError(f"{source} has {has} for each image, and the spec's labels are {wants}; change labels")
    if pictures.images.shape[2] != pictures.images.shape[3]:
        height, width = pictures.images.shape[2:]
        raise DataError(f"the images of {source} are {height} x {width} and not square; give data.size")
    trained = pictures.labels[pictures.training]
    if many:
        _checked_many(pictures, trained, source)
    else:
        _checked_one(pictures, trained, source)
    return pictures


def _checked_one(pictures: Pictures, trained: Labels, source: str) -> None:
    known = np.unique(trained)
    if len(known) == 1:
        name = pictures.classes[int(known[0])]
        raise DataError(f"all images of {source} are of one class, {name!r}; there is nothing to tell apart")
    if pictures.validation is not None:
        unknown = np.setdiff1d(pictures.labels[pictures.validation], known)
        if len(unknown):
            names = shortened([pictures.classes[int(label)] for label in unknown])
            raise DataError(
                f"{source} has classes for validation that are not in training: {names}; add or remove them"
            )


def _checked_many(pictures: Pictures, trained: Labels, source: str) -> None:
    if len(pictures.classes) == 0:
        raise DataError(f"no image of {source} has a label; there is nothing to learn")
    seen = trained.sum(axis=0, dtype=np.int64)
    if not seen.all():
        names = shortened([name for name, count in zip(pictures.classes, seen.tolist(), strict=True) if not count])
        raise DataError(f"{source} has labels that no training image has: {names}; add images, or remove the labels")


def shortened(names: Sequence[str], most: int = 3) -> str:
    """The first names in quotes, and how many more there are."""
    listed = ", ".join(repr(name) for name in names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most:,} more"
