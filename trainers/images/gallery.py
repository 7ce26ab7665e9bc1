"""Many encoded images into one array on disk, on several threads, skipping what cannot be read up to a limit."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.errors import DataError
from trainers.images.decode import Form
from trainers.images.pictures import Pixels, Rows, shortened

WINDOW = 256
"""Images that are decoded and not yet written, at most."""

Picture = Callable[[Form], Pixels]
"""An image that is yet to be decoded to a form."""


class Gallery:
    """The array of `count` images, of which some turn out to be unreadable: their rows stay black and unused."""

    def __init__(self, path: Path, count: int, source: str, form: Form, unreadable_max: int) -> None:
        """`path` is where the array will be; sizes and channels that `form` leaves open are the first image's."""
        self._path, self._count, self._source = path, count, source
        self._form, self._unreadable_max = form, unreadable_max
        self._first_name = ""
        self.unreadable: list[str] = []
        self._good = np.zeros(count, dtype=bool)
        self._images: Pixels | None = None

    @property
    def images(self) -> Pixels:
        """uint8 [count, channels, height, width], on disk."""
        if self._images is None:
            raise DataError(f"{self._source} has no image that can be read ({shortened(self.unreadable)} are not)")
        return self._images

    @property
    def rows(self) -> Rows:
        """Rows with an image."""
        return np.flatnonzero(self._good)

    def fill(self, pictures: Iterator[tuple[str, Picture]]) -> None:
        """Decode all images, each with its name, in order. Raises DataError with one sentence."""
        row = 0
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            while window := list(itertools.islice(pictures, WINDOW if self._images is not None else 1)):
                for (name, _), pixels in zip(window, pool.map(self._decoded, window), strict=True):
                    if pixels is None:
                        self._skip(name)
                    else:
                        self._place(row, name, pixels)
                    row += 1

    def _decoded(self, named: tuple[str, Picture]) -> Pixels | None:
        try:
            return named[1](self._form)
        except (OSError, ValueError, TypeError, SyntaxError, EOFError, OverflowError, MemoryError):
            return None  # What Pillow raises for bytes that are no whole image, or one that would fill the memory.
        except Image.DecompressionBombError:
            return None

    def _skip(self, name: str) -> None:
        self.unreadable.append(name)
        if len(self.unreadable) > self._unreadable_max:
            raise DataError(
                f"{self._source} has more images that cannot be read than data.unreadable_max {self._unreadable_max} "
                f"({shortened(self.unreadable)}); mend or delete them, or raise it"
            )

    def _place(self, row: int, name: str, pixels: Pixels) -> None:
        if self._images is None:
            self._first_name = name
            self._form = replace(self._form, channels=len(pixels))
            self._images = np.lib.format.open_memmap(
                self._path, mode="w+", dtype=np.uint8, shape=(self._count, *pixels.shape)
            )
        if pixels.shape != self._images.shape[1:]:
            first, this = (f"{shape[-2]} x {shape[-1]}" for shape in (self._images.shape, pixels.shape))
            raise DataError(
                f"the images of {self._source} have several sizes ({self._first_name} {first}, {name} {this}); "
                "give data.size"
            )
        self._images[row] = pixels
        self._good[row] = True
