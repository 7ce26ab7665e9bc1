"""Sets that have a name: samples that come with Highwater, and sets that were fetched into the cache."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from jobs.errors import DataError
from trainers import datasets
from trainers.images.decode import Form
from trainers.images.pictures import Pictures, Pixels, Rows

SAMPLES = Path(__file__).parent.parent / "samples"


def read(source: str, form: Form) -> Pictures:
    """The set `bundled:NAME` or `cache:NAME`; DataError says which there are, or how to fetch it."""
    place, _, name = source.partition(":")
    path = _bundled(name) if place == "bundled" else datasets.cached(name)
    if path.suffix != ".npz":
        raise DataError(f"{source} is no set of images; data.source can be bundled:digits or cache:fashion-mnist")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _pictures(arrays["images"], arrays["labels"], arrays["classes"], int(arrays["validation"]), form)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not the set that it was; delete it and fetch or install it again") from error


def _bundled(name: str) -> Path:
    names = sorted(path.stem for path in SAMPLES.glob("*.npz"))
    if name not in names:
        raise DataError(
            f"there are no bundled images {name!r}; data.source can be bundled:{' or bundled:'.join(names)}"
        )
    return SAMPLES / f"{name}.npz"


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
