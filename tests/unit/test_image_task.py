"""The image task: its steps, its normalisation, its layer groups, and networks of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from jobs.errors import HighwaterError
from tests.led import lead
from trainers.fit.preflight import preflight
from trainers.fit.sizes import Size
from trainers.image import ImageTask, prepare
from trainers.models.vision import Classifier
from trainers.models.wrapped import evaluating, unwrapped
from trainers.task import Shard

from .test_preflight import measured
from .tiny_image import CPU, image_spec, task_of


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These models are so small that a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_steps_are_the_same_whatever_the_factors_and_held_where(tmp_path: Path) -> None:
    spec = image_spec(tmp_path, batch=4, accumulation=2, workers=2)
    whole = task_of(spec, tmp_path, Shard(0, 1, 16, 1, CPU))
    on_disk = spec.model_copy(update={"resident_mib": 0.0})
    parts = [task_of(one, tmp_path, Shard(rank, 2, 4, 2, CPU)) for rank, one in enumerate((spec, on_disk))]
    assert parts[0]._images is not None
    assert parts[1]._images is None
    (batch,) = next(whole.steps(1, 3)).micros
    micros = [next(part.steps(1, 3)).micros for part in parts]
    groups = [micros[rank][micro] for micro in range(2) for rank in range(2)]
    assert torch.equal(batch.pixels(), torch.cat([group.pixels() for group in groups]))
    assert torch.equal(batch.targets(), torch.cat([group.targets() for group in groups]))
    sums = [part.evaluate(unwrapped_copy(whole)) for part in parts]
    assert (sums[0] + sums[1])[:-1].sum() == 359


def unwrapped_copy(task: ImageTask) -> nn.Module:
    torch.manual_seed(0)
    return task.model().eval()


def test_what_is_normalised_has_mean_zero_and_deviation_one(tmp_path: Path) -> None:
    task = task_of(image_spec(tmp_path, augment=None, batch=1438), tmp_path)
    model = unwrapped(task.model(), Classifier)
    (batch,) = next(task.steps(0, 0)).micros
    normal = (batch.pixels() - model.mean) / model.std
    assert abs(normal.mean()) < 1e-4
    assert normal.std() == pytest.approx(1, abs=1e-3)


def test_frozen_batch_norm_keeps_its_statistics(tmp_path: Path) -> None:
    for batch_norm, moves in (("train", True), ("frozen", False)):
        task = task_of(image_spec(tmp_path, batch_norm=batch_norm), tmp_path)
        model = task.model().train()
        before = {name: value.clone() for name, value in model.named_buffers()}
        step = next(task.steps(0, 0))
        task.loss(model, step.micros[0], ()).total.backward()
        changed = [name for name, value in model.named_buffers() if not torch.equal(value, before[name])]
        assert bool(changed) == moves
        with evaluating(model, Classifier):
            assert not model.training
        assert model.training


def test_layer_groups_go_from_the_input_to_the_head(tmp_path: Path) -> None:
    groups = {
        "convnet": ({"kind": "convnet", "widths": [4, 4, 4]}, 4),
        "mlp": ({"kind": "mlp", "widths": [8, 8]}, 3),
        "resnet": ({"kind": "resnet", "stem": "small", "head": 16}, 5),
    }
    for model, count in groups.values():
        task = task_of(image_spec(tmp_path, model=model), tmp_path)
        net = task.model()
        found = task.groups(net)
        assert len(found) == count
        assert sum(len(group) for group in found) == len(list(net.parameters()))
        assert found[-1][-1].shape == (10,)


def test_a_batch_that_the_data_cannot_fill_is_told(tmp_path: Path) -> None:
    with pytest.raises(HighwaterError, match="has 1,438 images, and one step needs 2,000"):
        prepare(image_spec(tmp_path, batch=2000), tmp_path / "data")


def test_accuracy_is_no_metric_for_many_labels(tmp_path: Path) -> None:
    with pytest.raises(HighwaterError, match="metric accuracy is for images with one label"):
        image_spec(tmp_path, labels="many", metric="accuracy")
    with pytest.raises(HighwaterError, match="either source or factory"):
        image_spec(tmp_path, data={})


# Networks of one's own


def own(channels: int, size: int, outputs: int, what: str = "", more: int = 0) -> Any:
    if what == "nothing":
        return None
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, outputs + more))
    assert size == 8
    return net


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    model = {"kind": "custom", "factory": f"{__name__}:own"}
    result = lead(image_spec(tmp_path, model=model, augment=None, learning_rate=0.1), "x")
    assert result is not None
    assert result.metrics["accuracy"] > 0.3
    for options, said in (
        ({"what": "nothing"}, "returned a NoneType, but must return a torch module"),
        ({"more": 1}, r"gives a tensor of shape \[2, 11\] for 2 images, but must give logits of shape \[2, 10\]"),
    ):
        with pytest.raises(HighwaterError, match=said):
            prepare(image_spec(tmp_path, model=model | {"options": options}), tmp_path / "data")


# Memory


@pytest.mark.parametrize(
    ("model", "batch", "least"),
    [
        ({"kind": "convnet", "widths": [16, 32]}, 128, 0.9),
        ({"kind": "mlp", "widths": [64, 64]}, 128, 0.98),
        # oneDNN copies a convolution's weights into its own layout and back, which no tensor accounts for.
        ({"kind": "resnet", "stem": "small"}, 32, 0.75),
    ],
)
def test_what_shapes_say_is_what_the_allocator_does(tmp_path: Path, model: Any, batch: int, least: float) -> None:
    spec = image_spec(tmp_path, model=model, optimizer={"kind": "sgd"}, augment={"cutout": 0.2})
    prepare(spec, tmp_path / "data")
    found = preflight(spec.model_copy(update={"batch": 64}), tmp_path / "data")
    sized = spec.model_copy(update={"batch": batch})
    said = found.highest(Size(batch)) - found.surface(Size(batch)).other
    assert least <= said / measured(sized, tmp_path / "data") <= 1.15
    assert found.parts(Size(batch))["data"] >= 1797 * 64
