"""Image runs led by the driver: they resume bit for bit, workers do not change them, and they learn."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.led import in_child, lead, run_of

from .kills import check_kills
from .tiny_image import CONVNET, image_spec


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_killed_at_random_instants_equals_one_that_was_not(tmp_path: Path, workers: int) -> None:
    check_kills(image_spec(tmp_path, workers=workers, batch=16 // workers), seed=workers)


def test_two_workers_follow_one_over_the_same_images(tmp_path: Path) -> None:
    quiet = {"model": CONVNET | {"dropout": 0.0}, "augment": None, "batch_norm": "frozen", "optimizer": {"kind": "sgd"}}
    one = image_spec(tmp_path, workers=1, batch=16, **quiet)
    two = image_spec(tmp_path, workers=2, batch=8, **quiet)
    for spec, name in ((one, "one"), (two, "two")):
        assert os.waitpid(in_child(lambda spec=spec, name=name: lead(spec, name)), 0)[1] == 0  # type: ignore[misc]
    rows = [run_of(one, name).rows("metrics") for name in ("one", "two")]
    losses = [[row["loss"] for row in found if row["kind"] == "step"] for found in rows]
    assert len(losses[0]) == 40
    assert max(abs(a - b) / a for a, b in zip(*losses, strict=True)) <= 1e-5
    evals = [[row["metrics"]["accuracy"] for row in found if row["kind"] == "eval"] for found in rows]
    assert evals[0] == evals[1]


def test_a_short_run_learns_the_digits_and_shows_what_it_does(tmp_path: Path) -> None:
    spec = image_spec(tmp_path, steps=120, augment=None, model=CONVNET | {"widths": [16, 32]}, learning_rate=0.02)
    result = lead(spec, "x")
    assert result is not None
    assert result.metrics["accuracy"] > 0.9
    assert result.baseline["accuracy"] < 0.15
    shown = json.loads(run_of(spec, "x").store.get("x/examples.json"))
    counts = np.array(shown["confusion"]["counts"])
    assert counts.sum() == 359
    assert counts.trace() / 359 == pytest.approx(result.metrics["accuracy"])
    wrong = 359 - counts.trace()
    assert len(shown["mistakes"]) == min(24, wrong)
    sure = [one["confidence"] for one in shown["mistakes"]]
    assert sure == sorted(sure, reverse=True)
    first = shown["mistakes"][0]
    assert first["true"] != first["predicted"]
    assert Image.open(io.BytesIO(base64.b64decode(first["image"]))).size == (8, 8)


def test_many_labels_are_learned_and_their_thresholds_told(tmp_path: Path) -> None:
    data = {"factory": "tests.shapes:pictures", "options": {"count": 1200, "valid": 300}}
    model = CONVNET | {"widths": [24, 48], "dropout": 0.0}
    changes = {"data": data, "labels": "many", "model": model, "augment": None, "steps": None, "epochs": 6}
    spec = image_spec(tmp_path, **changes, evaluation={})
    result = lead(spec, "x")
    assert result is not None
    assert result.metrics["f1"] >= 0.9
    assert result.baseline["f1"] < 0.5
    shown = json.loads(run_of(spec, "x").store.get("x/examples.json"))
    assert [row["label"] for row in shown["labels"]] == [f"digit {n}" for n in range(10)]
    assert np.mean([row["f1"] for row in shown["labels"]]) == pytest.approx(result.metrics["f1"])
    assert all(0 < row["threshold"] < 1 for row in shown["labels"])
    assert "digit" in shown["mistakes"][0]["true"] + shown["mistakes"][0]["predicted"]
