"""From the spec's model section to a network: the kinds of this repository, and those of the user's own."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from infra.storage import is_local, open_store
from jobs.errors import DataError, NotFoundError, SpecError
from jobs.spec_image import ConvNet, CustomNet, Mlp, ResNet
from trainers.factories import call
from trainers.models.vision import State, convnet, mlp

ModelSpec = Mlp | ConvNet | ResNet | CustomNet
TRIED = 2
"""Images that a network of the user's own is tried on."""


def build(spec: ModelSpec, channels: int, size: int, outputs: int, weights: State | None = None) -> nn.Module:
    """A new network for such images, drawn from the current torch seed, with logits for so many outputs."""
    match spec:
        case Mlp():
            return mlp(spec, channels, size, outputs)
        case ConvNet():
            return convnet(spec, channels, size, outputs)
        case ResNet():
            from trainers.models.resnet import resnet  # torchvision takes seconds to load, and only this needs it

            return resnet(spec, channels, outputs, weights)
        case CustomNet():
            return _custom(spec, channels, size, outputs)


def try_out(spec: ModelSpec, channels: int, size: int, outputs: int) -> None:
    """SpecError unless a network of the user's own gives logits for images; others need no trial."""
    if not isinstance(spec, CustomNet):
        return
    with torch.no_grad():
        given = build(spec, channels, size, outputs).eval()(torch.zeros(TRIED, channels, size, size))
    if not isinstance(given, torch.Tensor) or given.shape != (TRIED, outputs):
        what = f"a tensor of shape {list(given.shape)}" if isinstance(given, torch.Tensor) else type(given).__name__
        raise SpecError(
            f"the module of model.factory {spec.factory} gives {what} for {TRIED} images, but must give logits of "
            f"shape {[TRIED, outputs]}"
        )


def _custom(spec: CustomNet, channels: int, size: int, outputs: int) -> nn.Module:
    net = call(spec.factory, "model", spec.options, channels, size, outputs)
    if not isinstance(net, nn.Module):
        raise SpecError(f"model.factory {spec.factory} returned a {type(net).__name__}, but must return a torch module")
    return net


def pretrained(spec: ModelSpec, channels: int, endpoint: str | None) -> State | None:
    """The weights that the spec names for the network's body, or None where it names none.

    The file is read without running any code in it. Raises DataError or StorageError with one sentence.
    """
    if not isinstance(spec, ResNet) or spec.weights is None:
        return None
    from trainers.models.resnet import body_state

    content = _content(spec.weights, endpoint)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise DataError(
            f"model.weights {spec.weights} is no file of tensors that torch can load ({type(error).__name__}); "
            "save a state_dict with torch.save"
        ) from error
    if not isinstance(state, Mapping):
        raise DataError(f"model.weights {spec.weights} holds a {type(state).__name__} and no state_dict")
    try:
        return body_state(spec, channels, state)
    except ValueError as error:
        raise DataError(
            f"model.weights {spec.weights} is no state_dict of torchvision's resnet{spec.depth} with model.stem "
            f"{spec.stem}: {error}"
        ) from error


def _content(source: str, endpoint: str | None) -> bytes:
    folder, _, name = (source if not is_local(source) else str(Path(source).expanduser().absolute())).rpartition("/")
    try:
        return open_store(folder or "/", endpoint).get(name)
    except NotFoundError as error:
        raise DataError(f"model.weights {source} does not exist; give a file or an s3:// URI") from error
