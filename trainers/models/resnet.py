"""Residual networks (He et al. 2016): torchvision's bodies, with the head for transfer of fast.ai."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from jobs.spec_image import ResNet
from trainers.models.norms import Norm1d, Norm2d
from trainers.models.vision import ConcatPool, Network, State

COLOURS = 3
FIRST = "conv1.weight"
UNUSED = ("fc.",)
"""What a state_dict of torchvision has beyond the body."""


def resnet(spec: ResNet, channels: int, outputs: int, weights: State | None) -> Network:
    """The network for images of so many channels; its body begins at `weights`, as `body_state` gives them.

    Layer groups: the stem with the first layer, the three other layers, the head.
    """
    body = _torchvision(spec, channels)
    if weights is not None:
        body.load_state_dict(weights)
    first = [body.conv1, body.bn1, body.relu, *([body.maxpool] if spec.stem == "standard" else []), body.layer1]
    parts: list[tuple[str, nn.Module]] = [
        ("layer1", nn.Sequential(*first)),
        ("layer2", body.layer2),
        ("layer3", body.layer3),
        ("layer4", body.layer4),
    ]
    features = 512 * body.layer4[0].expansion
    return Network(OrderedDict(parts), transfer_head(2 * features, spec.head, outputs, spec.dropout))


def transfer_head(features: int, hidden: int, outputs: int, dropout: tuple[float, float]) -> nn.Module:
    """fast.ai's head: pooled features, then twice batch normalisation, dropout and a linear layer."""
    return nn.Sequential(
        ConcatPool(),
        Norm1d(features),
        nn.Dropout(dropout[0]),
        nn.Linear(features, hidden, bias=False),
        nn.ReLU(inplace=True),
        Norm1d(hidden),
        nn.Dropout(dropout[1]),
        nn.Linear(hidden, outputs),
    )


def body_state(spec: ResNet, channels: int, state: Mapping[str, object]) -> State:
    """What a state_dict of torchvision's network of this depth has for the body, ready for `resnet`.

    Where images are grey, the first convolution's weights for the three colours are added up: what it gives is then
    the same as for the grey image in colours. Raises ValueError, with what is missing or of another shape.
    """
    with torch.device("meta"):
        wanted = _torchvision(spec, channels).state_dict()
    found: State = {}
    for name, like in wanted.items():
        value = state.get(name)
        if value is None and name.endswith("num_batches_tracked"):
            value = torch.zeros((), dtype=like.dtype)
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is missing")  # noqa: TRY004 - a file's content, not a caller's slip
        if name == FIRST and channels == 1 and value.ndim == like.ndim and value.shape[1] == COLOURS:
            value = value.sum(1, keepdim=True)
        if value.shape != like.shape:
            raise ValueError(f"{name} is {list(value.shape)} and must be {list(like.shape)}")
        found[name] = value.to(like.dtype).contiguous()
    more = [name for name in state if name not in wanted and not name.startswith(UNUSED)]
    if more:
        raise ValueError(f"{more[0]} belongs to another network")
    return found


def _torchvision(spec: ResNet, channels: int) -> torchvision_resnet.ResNet:
    """torchvision's network without its output layer, and with the first convolution that is wanted."""
    build = {
        18: torchvision_resnet.resnet18,
        34: torchvision_resnet.resnet34,
        50: torchvision_resnet.resnet50,
    }[spec.depth]
    net: torchvision_resnet.ResNet = build(weights=None, norm_layer=Norm2d)
    if spec.stem == "small":
        net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    elif channels != COLOURS:
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.fc = nn.Identity()
    return net
