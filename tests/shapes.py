"""Pictures with several digits in each, and the set of digits that are in them: what many labels are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGITS = Path(__file__).parent.parent / "trainers" / "samples" / "digits.npz"
SIDE = 8


def pictures(count: int, valid: int, cells: int = 2, classes: int = 10, seed: int = 0) -> dict[str, Any]:
    """A data factory: `count` and `valid` pictures of `cells` x `cells` places, each with a digit or empty.

    The digits in pictures for validation are in none for training, and stand a little off their places.
    """
    draw = np.random.default_rng(seed)
    with np.load(DIGITS) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    order = draw.permutation(np.flatnonzero(labels < classes))
    cut = len(order) // 4
    made = {
        name: _composed(images, labels, rows, wanted, cells, classes, draw)
        for name, wanted, rows in (("train", count, order[cut:]), ("valid", valid, order[:cut]))
    }
    names = [f"digit {number}" for number in range(classes)]
    (train, train_labels), (held_out, held_out_labels) = made["train"], made["valid"]
    further = {"images": held_out, "labels": held_out_labels}
    return {"images": train, "labels": train_labels, "classes": names, "valid": further}


def _composed(
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    count: int,
    cells: int,
    classes: int,
    draw: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    place = SIDE + 2
    canvas = np.zeros((count, cells * place, cells * place), dtype=np.uint8)
    present = np.zeros((count, classes), dtype=np.uint8)
    for number in range(count):
        for cell in range(cells * cells):
            if draw.random() < 0.4:
                continue
            row = draw.choice(rows)
            top, left = (place * at + draw.integers(0, 3) for at in divmod(cell, cells))
            canvas[number, top : top + SIDE, left : left + SIDE] = images[row]
            present[number, labels[row]] = 1
    return canvas, present
