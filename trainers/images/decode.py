"""One encoded image to an array of the wanted form."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from trainers.images.pictures import Pixels

GREY_MODES = {"1", "L", "LA", "I", "I;16", "I;16B", "F"}


@dataclass(frozen=True)
class Form:
    """What all images of a set are brought to; None leaves it as the image has it."""

    size: int | None = None
    channels: int | None = None

    def of(self, content: bytes) -> Pixels:
        """An encoded image (PNG, JPEG and whatever else Pillow reads) as uint8 [channels, height, width].

        It is turned as its camera says. Where a size is wanted, the middle square is cut out and scaled. Raises
        whatever Pillow raises for bytes that are no whole image.
        """
        with Image.open(io.BytesIO(content)) as opened:
            image = ImageOps.exif_transpose(opened)
            channels = self.channels or (1 if image.mode in GREY_MODES else 3)
            return self._array(_eight_bit(image).convert("L" if channels == 1 else "RGB"))

    def of_array(self, pixels: Pixels) -> Pixels:
        """The same of pixels [channels, height, width]."""
        fits = self.channels in (None, len(pixels)) and self.size in (None, pixels.shape[1])
        if fits and (self.size is None or pixels.shape[1] == pixels.shape[2]):
            return pixels
        image = Image.fromarray(pixels[0]) if len(pixels) == 1 else Image.fromarray(pixels.transpose(1, 2, 0))
        channels = self.channels or len(pixels)
        return self._array(image.convert("L" if channels == 1 else "RGB"))

    def _array(self, image: Image.Image) -> Pixels:
        if self.size is not None and image.size != (self.size, self.size):
            image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR)
        array = np.asarray(image, dtype=np.uint8)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _eight_bit(image: Image.Image) -> Image.Image:
    """Images of 16 bits as such of 8: Pillow's own conversion would cut off whatever is brighter than 255."""
    if image.mode in ("I", "I;16", "I;16B"):
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    return image
