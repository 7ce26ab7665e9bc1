"""Images from a function of the user's own, checked: what is wrong with them is one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jobs.errors import DataError
from jobs.spec_image import ImageData
from trainers.factories import call
from trainers.images.decode import Form
from trainers.images.pictures import Labels, Pictures, Pixels


def read(factory: str, data: ImageData, form: Form) -> Pictures:
    """What the factory returns: {"images", "labels", "classes"}, and perhaps "valid" with images and labels.

    Raises SpecError where there is no such function, DataError for what it returns, and what the function itself
    raises.
    """
    found = call(factory, "data", data.options)
    if not isinstance(found, Mapping):
        raise DataError(
            f"{factory} returned a {type(found).__name__}, but must return a dictionary of images and labels"
        )
    classes = found.get("classes")
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise DataError(f"`classes` of {factory} must be a list of names")
    names = tuple(str(name) for name in classes)
    images, labels = _part(found, f"{factory}", names, form)
    rows = np.arange(len(labels))
    if found.get("valid") is None:
        return Pictures(images, labels, names, rows)
    if not isinstance(found["valid"], Mapping):
        raise DataError(f"`valid` of {factory} must be a dictionary of images and labels")
    more, further = _part(found["valid"], f"`valid` of {factory}", names, form)
    if more.shape[1:] != images.shape[1:] or further.shape[1:] != labels.shape[1:]:
        raise DataError(f"`valid` of {factory} has images or labels of another shape than those for training")
    both = np.concatenate([images, more])
    return Pictures(both, np.concatenate([labels, further]), names, rows, validation=np.arange(len(labels), len(both)))


def _part(part: Mapping[str, Any], whose: str, classes: tuple[str, ...], form: Form) -> tuple[Pixels, Labels]:
    for key in ("images", "labels"):
        if key not in part:
            raise DataError(f"{whose} has no `{key}`; it must have images and labels")
    images, labels = np.asarray(part["images"]), np.asarray(part["labels"])
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or (images.ndim == 4 and images.shape[1] not in (1, 3)):
        raise DataError(
            f"`images` of {whose} is {images.dtype} of shape {list(images.shape)}, but must be uint8 [n, height, "
            "width] or [n, channels, height, width] with 1 or 3 channels"
        )
    if 0 in images.shape:
        raise DataError(f"`images` of {whose} is empty (shape {list(images.shape)}); there must be images")
    _check_labels(labels, len(images), whose, len(classes))
    pixels = images[:, None] if images.ndim == 3 else images
    formed = np.stack([form.of_array(image) for image in pixels])
    return formed, labels.astype(np.int64 if labels.ndim == 1 else np.uint8)


def _check_labels(labels: Labels, images: int, whose: str, classes: int) -> None:
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError(
            f"`labels` of {whose} has {int((~np.isfinite(labels)).sum()):,} values that are no numbers (NaN)"
        )
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2) or len(labels) != images:
        raise DataError(
            f"`labels` of {whose} is {labels.dtype} of shape {list(labels.shape)} for {images:,} images, but must be "
            "integers [n], or 0 and 1 [n, labels]"
        )
    if labels.ndim == 2 and labels.shape[1] != classes:
        raise DataError(f"`labels` of {whose} has {labels.shape[1]} columns for {classes} classes; give each a name")
    low, high, most = int(labels.min()), int(labels.max()), (classes - 1 if labels.ndim == 1 else 1)
    if low < 0 or high > most:
        raise DataError(f"`labels` of {whose} go from {low} to {high}, but must be from 0 to {most}")
