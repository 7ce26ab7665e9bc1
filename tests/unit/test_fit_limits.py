"""What a spec and its data let the search consider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.errors import DataError
from trainers.fit.limits import bptts_for, cells_for, limits_for
from trainers.fit.sizes import Limits

from .tiny import tiny_spec

MIB = 2**20
FACTS = {"training_units": 100_001, "unit": "tokens"}


def limits(folder: Path, facts: dict[str, Any] = FACTS, **changes: Any) -> Limits:
    return limits_for(tiny_spec(folder, **changes), facts, 64 * MIB)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, False), ({"batch": "auto"}, True), ({"bptt": "auto"}, True), ({"batch": "auto", "bptt": "auto"}, True)],
)
def test_only_auto_is_looked_for(tmp_path: Path, changes: dict[str, Any], expected: bool) -> None:
    assert tiny_spec(tmp_path, **changes).wants_fit is expected


def test_a_given_bptt_is_the_only_candidate(tmp_path: Path) -> None:
    found = limits(tmp_path, batch="auto", bptt=70)
    assert (found.bptts, found.bptt_fixed) == ((70,), True)
    assert (found.batch_min, found.batch_max) == (1, None)


def test_candidates_run_from_the_shortest_jittered_sequence_to_the_users_cap(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, bptt="auto", bptt_jitter={"min_steps": 7}, fit={"bptt_max": 70})
    assert bptts_for(spec) == (8, 12, 16, 24, 32, 48, 64, 70)
    spec = tiny_spec(tmp_path, bptt="auto", fit={"bptt_min": 30, "bptt_max": 70})
    assert bptts_for(spec) == (30, 32, 48, 64, 70)
    assert bptts_for(tiny_spec(tmp_path, bptt="auto", bptt_jitter=None, fit={"bptt_max": 4})) == (4,)


def test_an_epoch_keeps_its_steps_unless_the_user_gives_a_cap(tmp_path: Path) -> None:
    assert limits(tmp_path, batch="auto", workers=2, accumulation=5).cells_max == 100_000 // 10 // 100
    assert limits(tmp_path, batch="auto", fit={"steps_per_epoch": 400}).cells_max == 250
    capped = limits(tmp_path, batch="auto", fit={"batch_max": 32})
    assert (capped.batch_max, capped.cells_max) == (32, 100_000)


def test_candidates_that_the_data_cannot_give_enough_steps_are_left_out(tmp_path: Path) -> None:
    found = limits(tmp_path, {"training_units": 10_001, "unit": "tokens"}, batch="auto", bptt="auto")
    assert found.cells_max == 100
    assert found.bptts[-1] == 96


def test_data_smaller_than_a_hundred_smallest_batches_still_trains(tmp_path: Path) -> None:
    found = limits(tmp_path, {"training_units": 41, "unit": "tokens"}, batch="auto", bptt="auto", bptt_jitter=None)
    assert (found.bptts, found.cells_max) == ((8,), 8)


def test_data_that_fills_no_batch_is_refused_in_one_sentence(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, batch="auto", bptt=70, workers=4)
    with pytest.raises(
        DataError, match=r"100 tokens, too few for 4 workers x accumulation 1 x the smallest batch of 70"
    ):
        cells_for(spec, {"training_units": 100, "unit": "tokens"}, 70)


def test_a_fixed_batch_is_both_least_and_most(tmp_path: Path) -> None:
    found = limits(tmp_path, batch=24, bptt="auto")
    assert (found.batch_min, found.batch_max) == (24, 24)
    assert max(b for b in found.bptts if b) == 32  # 24 x 48 cells would leave fewer than 100 steps
