"""Augmentation and metrics of images, each on its own."""

from __future__ import annotations

import math

import pytest
import torch

from jobs.spec_image import Augment
from trainers.augment import DRAWS, augmented, draw, matrices
from trainers.image_examples import confusion, of_many_labels, of_one_label
from trainers.image_metrics import BINS, ManyLabels, OneLabel, logit_of

STILL = Augment(shift=0.0, rotation=0.0, scale=0.0)
BLANK = torch.full((1, 1, 1), 0.5)


def draws(**values: float) -> torch.Tensor:
    """One image's draws, all in the middle but for some."""
    names = ("flip", "x", "y", "turn", "scale", "brightness", "contrast", "cut_x", "cut_y")
    assert len(names) == DRAWS
    return torch.tensor([[values.get(name, 0.5) for name in names]])


def picture() -> torch.Tensor:
    return torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def changed(spec: Augment, **values: float) -> torch.Tensor:
    return augmented(picture(), draws(**values), spec, BLANK)


# Augmentation


def test_nothing_asked_for_changes_nothing() -> None:
    assert torch.equal(changed(STILL, flip=0.1, x=0.9, turn=0.9, brightness=0.9, cut_x=0.1), picture())


def test_a_mirror_is_one_and_every_other_image_gets_it() -> None:
    spec = STILL.model_copy(update={"flip": True})
    assert torch.allclose(changed(spec, flip=0.4), picture().flip(3), atol=1e-6)
    assert torch.allclose(changed(spec, flip=0.6), picture(), atol=1e-6)


def test_a_shift_moves_by_pixels_and_what_comes_in_is_the_border() -> None:
    spec = STILL.model_copy(update={"shift": 0.25, "border": "black"})
    moved = changed(spec, x=1.0)
    assert torch.allclose(moved[..., :6], picture()[..., 2:], atol=1e-6)
    assert moved[..., 6:].abs().max() < 1e-6
    edge = changed(spec.model_copy(update={"border": "edge"}), y=0.0)
    assert torch.allclose(edge[:, :, 2:], picture()[:, :, :6], atol=1e-6)
    assert torch.allclose(edge[:, :, 0], picture()[:, :, 0], atol=1e-6)


def test_a_quarter_turn_is_one() -> None:
    turned = changed(STILL.model_copy(update={"rotation": 90.0}), turn=1.0)
    assert torch.allclose(turned, torch.rot90(picture(), 1, (2, 3)), atol=1e-5)


def test_scaling_is_even_in_both_directions() -> None:
    spec = STILL.model_copy(update={"scale": 0.5})
    shrunk, enlarged = (matrices(draws(scale=value), spec)[0, 0, 0].item() for value in (1.0, 0.0))
    assert shrunk == pytest.approx(1.5)
    assert enlarged == pytest.approx(1 / 1.5)


def test_light_moves_pixels_and_keeps_them_between_0_and_1() -> None:
    spec = STILL.model_copy(update={"brightness": 0.2, "contrast": 0.5})
    mean = picture().mean()
    assert torch.allclose(changed(spec, brightness=0.75), (picture() + 0.1).clamp(0, 1), atol=1e-6)
    assert torch.allclose(changed(spec, contrast=0.0), (picture() - mean) * 0.5 + mean, atol=1e-6)
    assert changed(spec, brightness=1.0, contrast=1.0).max() == 1


def test_cutout_blanks_a_square() -> None:
    spec = STILL.model_copy(update={"cutout": 0.5})
    blank = changed(spec) == BLANK
    assert blank.sum() == 16
    assert blank[0, 0, 2:6, 2:6].all()
    corner = changed(spec, cut_x=0.0, cut_y=1.0) == BLANK
    assert corner[0, 0, 6:, :2].all()
    assert corner.sum() == 4


def test_draws_are_the_generators_alone_and_each_image_has_its_own() -> None:
    first, again = (draw(4, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    spec = Augment(flip=True, cutout=0.3, brightness=0.1, contrast=0.1)
    images = picture().expand(4, -1, -1, -1)
    together = augmented(images, first, spec, BLANK)
    assert len({tuple(image.flatten().tolist()) for image in together}) == 4
    apart = torch.cat([augmented(images[:1], first[n : n + 1], spec, BLANK) for n in range(4)])
    assert torch.equal(together, apart)


# Metrics


def test_metrics_of_one_label() -> None:
    scores = OneLabel(3)
    logits = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [2.0, 0, 0], [0, 2.0, 0]])
    labels = torch.tensor([0, 0, 0, 1])
    sums = torch.zeros(scores.length, dtype=torch.float64)
    scores.add(sums, logits[:1], labels[:1])
    scores.add(sums, logits[1:], labels[1:])
    assert scores.confusion(sums).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    found = scores.metrics(sums)
    assert found["accuracy"] == 0.75
    assert found["f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert math.isnan(scores.metrics(torch.zeros(scores.length, dtype=torch.float64))["accuracy"])


def exact_f1(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The best F1 of one label over all thresholds, one by one."""
    best = 0.0
    for threshold in logits.tolist():
        said = logits >= threshold
        right = (said & labels.bool()).sum().item()
        best = max(best, 2 * right / (said.sum().item() + labels.sum().item()))
    return best


def exact_precision(logits: torch.Tensor, labels: torch.Tensor) -> float:
    ordered = labels[logits.argsort(descending=True)].double()
    precision = ordered.cumsum(0) / torch.arange(1, len(ordered) + 1)
    return float((precision * ordered).sum() / ordered.sum())


def test_metrics_of_many_labels_are_those_of_every_threshold() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(400, 3, generator=generator) < torch.tensor([0.5, 0.1, 0.02])).to(torch.uint8)
    logits = 2 * torch.randn(400, 3, generator=generator) + 3 * labels - 2
    scores = ManyLabels(3)
    sums = torch.zeros(scores.length, dtype=torch.float64)
    for part in range(0, 400, 100):
        scores.add(sums, logits[part : part + 100], labels[part : part + 100])
    found = scores.metrics(sums)
    exact = [exact_f1(logits[:, n], labels[:, n]) for n in range(3)]
    assert found["f1"] == pytest.approx(sum(exact) / 3, abs=0.02)
    average = [exact_precision(logits[:, n], labels[:, n]) for n in range(3)]
    assert found["average_precision"] == pytest.approx(sum(average) / 3, abs=0.03)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    assert found["loss"] == pytest.approx(loss.item())
    table = scores.table(sums, ["a", "b", "c"])
    assert [row["rows"] for row in table] == labels.sum(0).tolist()
    assert sum(row["f1"] for row in table) / 3 == pytest.approx(found["f1"])
    first = table[0]
    said = torch.sigmoid(logits[:, 0].double()) >= first["threshold"]
    assert first["precision"] == pytest.approx((said & labels[:, 0].bool()).sum().item() / said.sum().item(), abs=1e-9)


def test_a_threshold_between_two_clear_groups_is_in_their_middle() -> None:
    scores = ManyLabels(2)
    sums = torch.zeros(scores.length, dtype=torch.float64)
    scores.add(
        sums,
        torch.tensor([[-4.0, 1.0], [-3.0, 2.0], [3.0, 3.0], [5.0, 4.0]]),
        torch.tensor([[0, 0], [0, 0], [1, 0], [1, 0]]),
    )
    found = logit_of(scores.thresholds(sums))
    assert abs(found[0]) <= 16 / BINS
    assert abs(found[1]) <= 16 / BINS  # A label that no image has: nothing is known.
    assert scores.metrics(sums)["f1"] == 1


# Examples


def test_the_surest_mistakes_come_first() -> None:
    logits = torch.tensor([[5.0, 0], [0, 1.0], [0, 9.0], [9.0, 0]])
    scores, labels = OneLabel(2), torch.tensor([1, 0, 0, 0])
    sums = torch.zeros(scores.length, dtype=torch.float64)
    scores.add(sums, logits, labels)
    shown, mistakes = of_one_label(scores, sums, logits, labels, ["x", "y"])
    assert shown == {"confusion": {"classes": ["x", "y"], "counts": [[1, 2], [1, 0]]}}
    assert [(row, true, said) for row, true, said, _ in mistakes] == [(2, "x", "y"), (0, "y", "x"), (1, "x", "y")]


def test_mistakes_of_many_labels_name_all_of_them() -> None:
    labels = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 1]] * 2, dtype=torch.uint8)
    logits = torch.where(labels > 0, 3.0, -3.0)
    logits[4] = torch.tensor([-7.0, 6.0])
    scores = ManyLabels(2)
    sums = torch.zeros(scores.length, dtype=torch.float64)
    scores.add(sums, logits, labels)
    _, mistakes = of_many_labels(scores, sums, logits, labels, ["x", "y"])
    assert mistakes[0][:3] == (4, "x", "y")
    assert mistakes[0][3] == pytest.approx(torch.sigmoid(torch.tensor(7.0)).item())
    assert all(true != said for _, true, said, _ in mistakes)


def test_of_very_many_classes_those_with_mistakes_are_named() -> None:
    counts = torch.eye(300) * 5
    counts[7, 200] = 4
    shown = confusion(counts, [f"c{n}" for n in range(300)])
    assert len(shown["classes"]) == 100
    assert shown["classes"][-1] == "201 other classes"
    assert sum(map(sum, shown["counts"])) == counts.sum()
    assert shown["counts"][shown["classes"].index("c7")][shown["classes"].index("c200")] == 4
