"""Networks over images: what the plain one can fit, and where a residual one gets its weights from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import resnet18

from jobs.errors import DataError
from jobs.spec_image import ConvNet, ResNet
from tests.bench.image_mlp import median_left_over
from trainers.image import prepare
from trainers.image_net import pretrained
from trainers.models.norms import Norm1d
from trainers.models.resnet import body_state, resnet
from trainers.models.vision import Classifier, convnet
from trainers.models.wrapped import unwrapped

from .tiny_image import image_spec, task_of


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These models are so small that a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The plain network


def test_the_mlp_fits_an_arbitrary_function_better_as_it_widens_and_deepens_and_only_with_its_non_linearities() -> None:
    def left(widths: list[int], activation: Any = "relu") -> float:
        return median_left_over(widths, activation, steps=250)

    assert left([64]) < 0.8 * left([2])
    assert left([12, 12, 12]) < 0.5 * left([12])
    straight = [left(widths, "none") for widths in ([32], [12, 12, 12])]
    assert straight == pytest.approx([straight[0]] * 2, rel=1e-2)
    assert straight[0] > 0.8


# Residual networks


GREY = ResNet(head=32)


def saved(folder: Path, **changes: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """A file with the weights of torchvision's own resnet18, some of them changed or (None) left out."""
    torch.manual_seed(3)
    state = resnet18().state_dict() | changes
    state = {name: value for name, value in state.items() if value is not None}
    torch.save(state, folder / "resnet18.pth")
    return str(folder / "resnet18.pth"), state


def test_weights_of_torchvision_give_its_features() -> None:
    torch.manual_seed(0)
    original = resnet18().eval()
    state = body_state(GREY, 3, original.state_dict())
    net = resnet(GREY, 3, 7, state).eval()
    features: list[torch.Tensor] = []
    original.layer4.register_forward_hook(lambda *call: features.append(call[2]))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        original(images)
        assert torch.equal(net.body(images), features[0])
        grey = resnet(GREY, 1, 7, body_state(GREY, 1, original.state_dict())).eval()
        original(images[:, :1].expand(-1, 3, -1, -1))
        assert torch.allclose(grey.body(images[:, :1]), features[1], atol=1e-4)
        assert net(images).shape == (2, 7)


def test_a_run_keeps_the_weights_that_it_began_with(tmp_path: Path) -> None:
    path, state = saved(tmp_path)
    spec = image_spec(tmp_path, model={"kind": "resnet", "weights": path, "head": 16}, augment=None)
    prepare(spec, tmp_path / "data")
    Path(path).unlink()
    net = unwrapped(task_of(spec, tmp_path).model(), Classifier).net
    assert torch.equal(net.get_parameter("body.layer2.0.conv1.weight"), state["layer2.0.conv1.weight"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer1.0.conv1.weight": None}, "layer1.0.conv1.weight is missing"),
        ({"layer1.0.conv1.weight": torch.zeros(2)}, r"layer1.0.conv1.weight is \[2\] and must be \[64, 64, 3, 3\]"),
        ({"layer9.weight": torch.zeros(2)}, "layer9.weight belongs to another network"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path, _ = saved(tmp_path, **changes)
    with pytest.raises(DataError, match=said):
        pretrained(ResNet(weights=path), 3, None)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        pretrained(ResNet(weights=str(tmp_path / "no.pth")), 3, None)
    (tmp_path / "text.pth").write_text("not a state_dict")
    with pytest.raises(DataError, match="no file of tensors that torch can load"):
        pretrained(ResNet(weights=str(tmp_path / "text.pth")), 3, None)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="holds a list and no state_dict"):
        pretrained(ResNet(weights=str(tmp_path / "list.pth")), 3, None)
    path, _ = saved(tmp_path)
    with pytest.raises(DataError, match=r"with model.stem small: conv1.weight is \[64, 3, 7, 7\]"):
        pretrained(ResNet(weights=path, stem="small"), 3, None)
    assert pretrained(ConvNet(), 3, None) is None


@pytest.mark.parametrize(("depth", "features"), [(34, 512), (50, 2048)])
def test_every_depth_has_its_width(depth: Any, features: int) -> None:
    with torch.device("meta"):
        net = resnet(ResNet(depth=depth, stem="small", head=16), 1, 5, None)
        assert net(torch.empty(2, 1, 8, 8)).shape == (2, 5)
    norms = [module for module in net.head.modules() if isinstance(module, Norm1d)]
    assert [norm.num_features for norm in norms] == [2 * features, 16]


def test_a_micro_batch_of_one_image_can_be_trained_on() -> None:
    for net in (resnet(ResNet(stem="small", head=8), 1, 3, None), convnet(ConvNet(widths=[4, 4, 4, 4]), 1, 8, 3)):
        net.train()(torch.rand(1, 1, 8, 8)).sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
