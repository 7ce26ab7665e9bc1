"""Sets that have a name: samples that come with Highwater, and sets that were fetched into the cache."""

from __future__ import annotations

import zipfile

import numpy as np

from jobs.errors import DataError
from trainers.images.decode import Form
from trainers.images.pictures import Pictures, Pixels, Rows
from trainers.sources import Kind, bundled, cached

IMAGES = Kind("set of images", ".npz", (".npz",), (), "bundled:digits or cache:fashion-mnist")


def read(source: str, form: Form) -> Pictures:
    """The set `bundled:NAME` or `cache:NAME`; DataError says which there are, or how to fetch it."""
    place, _, name = source.partition(":")
    path = bundled(name, IMAGES) if place == "bundled" else cached(name, IMAGES)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _pictures(arrays["images"], arrays["labels"], arrays["classes"], int(arrays["validation"]), form)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not the set that it was; delete it and fetch or install it again") from error


def _pictures(images: Pixels, labels: Rows, classes: Rows, validation: int, form: Form) -> Pictures:
    """The arrays of a file: the last `validation` images are held out; none are if it is 0."""
    formed = np.stack([form.of_array(image[None]) for image in images])
    rows = np.arange(len(labels))
    kept = len(rows) - validation
    return Pictures(
        images=formed,
        labels=labels.astype(np.int64),
        classes=tuple(str(name) for name in classes),
        training=rows[:kept],
        validation=rows[kept:] if validation else None,
    )
