"""Random changes to whole batches of images, on the device; what decides them is drawn on the CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from jobs.spec_image import Augment

DRAWS = 9
"""Numbers that an image's changes are made of."""
_FLIP, _X, _Y, _TURN, _SCALE, _BRIGHTNESS, _CONTRAST, _CUT_X, _CUT_Y = range(DRAWS)
PADDING = {"reflection": "reflection", "edge": "border", "black": "zeros"}


def draw(rows: int, generator: torch.Generator) -> Tensor:
    """What decides the changes of so many images: uniform from 0 to 1, [rows, DRAWS], on the CPU.

    As many numbers whatever is asked for, so that one more kind of change leaves the others as they are.
    """
    return torch.rand(rows, DRAWS, generator=generator)


def augmented(images: Tensor, draws: Tensor, spec: Augment, blank: Tensor) -> Tensor:
    """Images from 0 to 1 [rows, channels, height, width], each changed as its row of `draws` says.

    `blank` [channels, 1, 1] is what cutout leaves. Computes in float32 even where training does not: coordinates
    need it.
    """
    with torch.autocast(images.device.type, enabled=False):
        if spec.flip or spec.shift or spec.rotation or spec.scale:
            images = _moved(images, draws, spec)
        if spec.brightness or spec.contrast:
            images = _lit(images, draws, spec)
        return _cut(images, draws, spec, blank) if spec.cutout else images


def _moved(images: Tensor, draws: Tensor, spec: Augment) -> Tensor:
    """Mirrored, scaled, turned and shifted, all in one interpolation."""
    grid = functional.affine_grid(matrices(draws, spec), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, "bilinear", PADDING[spec.border], align_corners=False)


def matrices(draws: Tensor, spec: Augment) -> Tensor:
    """[rows, 2, 3]: where each place of a changed image is in the original, in coordinates from -1 to 1."""
    angle = _around_zero(draws[:, _TURN]) * math.radians(spec.rotation)
    shrink = torch.exp(_around_zero(draws[:, _SCALE]) * math.log1p(spec.scale))
    mirror = torch.where(draws[:, _FLIP] < 0.5, -1.0, 1.0) if spec.flip else torch.ones_like(angle)
    cos, sin = torch.cos(angle) * shrink, torch.sin(angle) * shrink
    x, y = (2 * spec.shift * _around_zero(draws[:, axis]) for axis in (_X, _Y))
    top, bottom = torch.stack([cos * mirror, -sin, x], 1), torch.stack([sin * mirror, cos, y], 1)
    return torch.stack([top, bottom], 1)


def _lit(images: Tensor, draws: Tensor, spec: Augment) -> Tensor:
    mean = images.mean((1, 2, 3), keepdim=True)
    contrast = 1 + spec.contrast * _around_zero(draws[:, _CONTRAST])
    brightness = spec.brightness * _around_zero(draws[:, _BRIGHTNESS])
    lit = (images - mean) * contrast.view(-1, 1, 1, 1) + mean + brightness.view(-1, 1, 1, 1)
    return lit.clamp(0, 1)


def _cut(images: Tensor, draws: Tensor, spec: Augment, blank: Tensor) -> Tensor:
    """A square around a place anywhere in the image: near a border, part of it lies outside."""
    inside = [_near(images.shape[dim], draws[:, axis], spec.cutout, images) for dim, axis in ((2, _CUT_Y), (3, _CUT_X))]
    square = (inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1)
    return torch.where(square, blank, images)


def _near(length: int, centre: Tensor, side: float, like: Tensor) -> Tensor:
    """Which of so many pixels are within half a side of a centre, both as shares of the length: [rows, length]."""
    places = (torch.arange(length, device=like.device) + 0.5) / length
    return (places - centre.unsqueeze(1)).abs() < side / 2


def _around_zero(uniform: Tensor) -> Tensor:
    return 2 * uniform - 1
