"""Which rows are held out for validation, where the source does not say. Pure."""

from __future__ import annotations

import numpy as np

from trainers.images.pictures import Labels, Rows


def stratified(labels: Labels, rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Rows for training and for validation, both ascending: a share of each class, drawn at random.

    Rows with many labels are in one class if they have the same ones. Every class keeps a row for training, so a class
    of one is not validated; what rounding takes from one class it gives to the next, so that the whole has the share.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    _, classes = np.unique(labels[rows], axis=0, return_inverse=True)
    classes = classes.reshape(-1)
    by_class = order[np.argsort(classes[order], kind="stable")]
    held, owed = [], 0.0
    for members in np.split(by_class, np.cumsum(np.bincount(classes))[:-1]):
        owed += len(members) * share
        count = max(0, min(round(owed), len(members) - 1))
        owed -= count
        held.append(members[:count])
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[np.concatenate(held)] = True
    return rows[~chosen], rows[chosen]
