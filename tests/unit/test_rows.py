"""Every row is taken once an epoch, in the same order for any world size."""

from __future__ import annotations

import pytest
import torch

from jobs.errors import DataError
from trainers.rows import Order, evaluated, mixed
from trainers.task import Shard

CPU = torch.device("cpu")


def taken(workers: int, batch: int, accumulation: int, epoch: int, rows: int = 103) -> list[list[int]]:
    steps = []
    for step in range(rows // (workers * batch * accumulation)):
        groups: dict[int, list[int]] = {}
        for rank in range(workers):
            order = Order(rows, 5, Shard(rank, workers, batch, accumulation, CPU))
            for micro in range(accumulation):
                groups[micro * workers + rank] = order.indices(epoch, step, micro).tolist()
        steps.append([row for group in sorted(groups) for row in groups[group]])
    return steps


def test_the_rows_of_a_step_do_not_depend_on_who_computes_them() -> None:
    assert taken(1, 4, 6, epoch=1) == taken(2, 4, 3, epoch=1) == taken(3, 8, 1, epoch=1)


def test_an_epoch_takes_no_row_twice_and_the_next_one_takes_another_order() -> None:
    first, second = ([row for step in taken(1, 10, 1, epoch) for row in step] for epoch in (0, 1))
    assert len(first) == 100 == len(set(first))
    assert first != second


def test_randomness_belongs_to_a_group_of_rows() -> None:
    one, two = Order(100, 5, Shard(0, 1, 4, 4, CPU)), Order(100, 5, Shard(1, 2, 4, 2, CPU))
    assert one.generator(2, 3, 3).initial_seed() == two.generator(2, 3, 1).initial_seed()
    assert len({one.generator(2, 3, micro).initial_seed() for micro in range(4)}) == 4
    assert mixed(1, 23) != mixed(12, 3)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_row_is_evaluated_once(workers: int) -> None:
    parts = [
        list(range(50))[part] for rank in range(workers) for part in evaluated(50, Shard(rank, workers, 8, 1, CPU))
    ]
    assert sorted(row for part in parts for row in part) == list(range(50))


def test_too_few_rows_are_a_sentence() -> None:
    with pytest.raises(DataError, match=r"has 7 images, and one step needs 8 \(batch 4 x workers 2"):
        Order(7, 0, Shard(0, 2, 4, 1, CPU), "images")
