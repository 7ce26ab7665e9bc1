"""Networks over images, and the one module that is trained: normalisation, network and loss."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.spec_image import ConvNet, Mlp
from trainers.models.norms import Norm2d, freeze_norms

Groups = list[list[nn.Parameter]]
State = dict[str, Tensor]
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "none": nn.Identity}
SMALLEST_POOLED = 4
"""Side of a map below which it is not pooled any more."""


class Classifier(nn.Module):
    """A network that maps normalised images to logits, with the loss over them.

    The set's mean and standard deviation are part of it, so that a checkpoint holds all that a prediction needs.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        many: bool,
        smoothing: float,
        batch_norm: Literal["train", "frozen"] = "train",
    ) -> None:
        """`mean` and `std` are those of each channel, of pixels from 0 to 1."""
        super().__init__()
        self.net, self.many, self.smoothing, self.batch_norm = net, many, smoothing, batch_norm
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over rows, a scalar: cross-entropy, or for many labels the mean of their binary ones.

        `images` are floats from 0 to 1 [rows, channels, height, width], `labels` int64 [rows] or 0 and 1 [rows, n].
        """
        logits = self.logits(images).float()
        if not self.many:
            return functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        targets = labels.float() * (1 - self.smoothing) + self.smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, targets)

    def logits(self, images: Tensor) -> Tensor:
        """Logits [rows, outputs] of images from 0 to 1."""
        logits: Tensor = self.net((images - self.mean) / self.std)
        return logits

    def train(self, mode: bool = True) -> Classifier:
        """Training or evaluation mode; frozen batch normalisation stays in that of evaluation."""
        super().train(mode)
        if self.batch_norm == "frozen":
            freeze_norms(self.net)
        return self


class Network(nn.Module):
    """A body in named parts, and a head: each of them is a layer group."""

    def __init__(self, body: OrderedDict[str, nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(body)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [rows, channels, height, width] to logits [rows, outputs]."""
        logits: Tensor = self.head(self.body(images))
        return logits

    def layer_groups(self) -> Groups:
        """The parameters of each part of the body, those nearest to the input first, and last those of the head."""
        return [list(part.parameters()) for part in (*self.body, self.head)]


def mlp(spec: Mlp, channels: int, size: int, outputs: int) -> Network:
    """Linear layers over flattened images of this size, their weights scaled for the activation (He et al. 2015)."""
    widths = [channels * size * size, *spec.widths]
    body: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, width) in enumerate(itertools.pairwise(widths), start=1):
        linear = nn.Linear(inputs, width)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="linear" if spec.activation == "none" else "relu")
        parts = [linear, ACTIVATIONS[spec.activation](), nn.Dropout(spec.dropout)]
        body[f"layer{number}"] = nn.Sequential(*([nn.Flatten(), *parts] if number == 1 else parts))
    head: nn.Module = nn.Linear(widths[-1], outputs)
    return Network(body, head if spec.widths else nn.Sequential(nn.Flatten(), head))


class ConcatPool(nn.Module):
    """Average and maximum of each channel's map, side by side."""

    def forward(self, maps: Tensor) -> Tensor:
        """[rows, channels, height, width] to [rows, 2 channels]."""
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)


def convnet(spec: ConvNet, channels: int, size: int, outputs: int) -> Network:
    """Blocks of convolutions, each of which halves the sides of its maps, and a linear head over what they find."""
    body: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, width) in enumerate(itertools.pairwise([channels, *spec.widths]), start=1):
        parts: list[nn.Module] = []
        for first in range(spec.convolutions):
            taken = inputs if first == 0 else width
            parts += [nn.Conv2d(taken, width, 3, padding=1, bias=False), Norm2d(width), nn.ReLU(inplace=True)]
        if size >= SMALLEST_POOLED:
            parts.append(nn.MaxPool2d(2))
            size //= 2
        body[f"block{number}"] = nn.Sequential(*parts)
    head = nn.Sequential(ConcatPool(), nn.Dropout(spec.dropout), nn.Linear(2 * spec.widths[-1], outputs))
    return Network(body, head)
