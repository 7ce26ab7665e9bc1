"""The one way in: the pictures of a spec's data section, wherever they are, checked and split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jobs.errors import DataError
from jobs.spec_image import ImageData
from trainers.images import folder, given, named, parquet
from trainers.images.decode import Form
from trainers.images.pictures import Pictures, Rows, checked
from trainers.images.split import stratified


def pictures(data: ImageData, many: bool, endpoint: str | None, images: Path) -> tuple[Pictures, Rows]:
    """All pictures, and the rows for validation; rows of `Pictures.training` are then without those.

    What is decoded one by one is written to the file `images`, and its array lies there. Raises DataError, SpecError
    or StorageError, each with one sentence.
    """
    source = origin(data)
    found = checked(_read(data, source, endpoint, images), source, many)
    if found.validation is not None:
        if len(found.validation) == 0:
            raise DataError(f"{source} has no images for validation that can be read; add some")
        return found, found.validation
    training, validation = stratified(found.labels, found.training, data.validation_share, data.split_seed)
    if len(validation) == 0:
        raise DataError(f"{source} leaves no images for validation; raise data.validation_share or add images")
    return replace(found, training=training, validation=validation), validation


def origin(data: ImageData) -> str:
    """What to call the source in sentences."""
    return data.source or data.factory or ""


def _read(data: ImageData, source: str, endpoint: str | None, images: Path) -> Pictures:
    form = Form(data.size, data.channels)
    if data.factory is not None:
        return given.read(data.factory, data, form)
    if source.startswith(("bundled:", "cache:")):
        return named.read(source, form)
    if source.lower().endswith(".parquet"):
        return parquet.read(data, source, endpoint, images)
    return folder.read(data, source, endpoint, images)
