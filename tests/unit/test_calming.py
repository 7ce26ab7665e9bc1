"""What a run does about a loss that is not finite: what it lowers, in which order, how often, and what stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from infra.disk import DiskStore
from jobs.errors import LossNanError, Reason
from jobs.rundir import RunDir
from jobs.specfile import spec_from_json
from tests.led import lead, run_of
from tests.unit.tiny import document, tiny_spec
from tests.unit.tiny_table import table_spec
from trainers import bptt
from trainers.calming import calm, calmed, next_change

RECKLESS = {"optimizer": {"kind": "sgd"}, "clip_norm": None, "schedule": {"kind": "constant"}}


def test_a_language_model_lowers_its_truncation_twice_and_then_the_rate(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, bptt=64, learning_rate=0.3, nan_changes=5)
    past: list[str] = []
    lowered = []
    while change := next_change(spec, past):
        what, before, after = change
        lowered.append((what, before, round(after, 3)))
        past.append(what)
        spec = spec.model_copy(update={what: after})
    assert lowered == [
        ("truncation", 64, 32),
        ("truncation", 32, 16),
        ("learning_rate", 0.3, 0.1),
        ("learning_rate", pytest.approx(0.1), 0.033),
        ("learning_rate", pytest.approx(0.0333, rel=1e-2), 0.011),
    ]


def test_short_sequences_and_other_tasks_lower_the_rate_at_once(tmp_path: Path) -> None:
    short = next_change(tiny_spec(tmp_path, bptt=6, bptt_jitter=None), [])
    other = next_change(table_spec(tmp_path / "table"), [])
    assert short is not None
    assert other is not None
    assert short[0] == other[0] == "learning_rate"


def test_without_changes_the_first_one_ends_the_run(tmp_path: Path) -> None:
    assert next_change(tiny_spec(tmp_path, nan_changes=0), []) is None


@pytest.mark.parametrize("step", [1, 6])
def test_a_loss_that_no_update_has_touched_cannot_be_mended(step: int, tmp_path: Path) -> None:
    run = RunDir(DiskStore(tmp_path / "runs"), "first")
    events: list[Any] = []
    with pytest.raises(LossNanError, match="nan at step"):
        calm(
            run,
            tiny_spec(tmp_path),
            LossNanError(f"nan at step {step}", step=step),
            step - 1,
            lambda *a: events.append(a),
        )
    assert not events
    # A gradient is another matter: fewer time steps may be all that it needs.
    calm(
        run,
        tiny_spec(tmp_path),
        LossNanError("nan", step=step, of_gradient=True),
        step - 1,
        lambda *a: events.append(a),
    )
    assert len(events) == 1


def test_later_drivers_go_on_with_what_was_lowered_and_never_with_more(tmp_path: Path) -> None:
    run = RunDir(DiskStore(tmp_path / "runs"), "first")
    spec = tiny_spec(tmp_path, bptt=32, learning_rate=0.3)
    assert calmed(run, spec) == spec
    for _ in range(3):
        spec = calm(run, spec, LossNanError("nan at step 9", step=9), 5, lambda *_: None)
    again = calmed(run, tiny_spec(tmp_path, bptt=32, learning_rate=0.3))
    assert (again.truncation, again.learning_rate) == (8, pytest.approx(0.1))  # type: ignore[attr-defined]
    assert calmed(run, tiny_spec(tmp_path, bptt=32, learning_rate=0.01)).learning_rate == 0.01


@pytest.mark.parametrize(("begin", "end", "truncation", "expected"), [
    (0, 10, None, [(0, 10)]),
    (0, 10, 10, [(0, 10)]),
    (5, 15, 4, [(5, 8), (8, 11), (11, 15)]),
    (0, 1, 1, [(0, 1)]),
])  # fmt: skip
def test_pieces_cover_a_sequence(begin: int, end: int, truncation: int | None, expected: list[tuple[int, int]]) -> None:
    assert bptt.pieces(begin, end, truncation) == expected


def test_pieces_leave_the_plan_and_the_tokens_alone(tmp_path: Path) -> None:
    """The same steps over the same tokens, and at first the same loss: only gradients end sooner."""
    quiet = {"steps": 12, "optimizer": {"kind": "sgd"}, "learning_rate": 1e-9}
    rows = {}
    for truncation in (None, 5):
        changes = document(tmp_path, **quiet, truncation=truncation)
        for name in [name for name in changes["model"] if name.startswith("dropout") or name.endswith("penalty")]:
            changes["model"][name] = 0.0
        spec = spec_from_json(changes)
        assert lead(spec, f"t{truncation}") is not None
        rows[truncation] = [r for r in run_of(spec, f"t{truncation}").rows("metrics") if r["kind"] == "step"]
    whole, cut = rows[None], rows[5]
    assert [r["units"] for r in whole] == [r["units"] for r in cut]
    assert [r["rate"] for r in whole] == [r["rate"] for r in cut]
    torch.testing.assert_close([r["loss"] for r in whole], [r["loss"] for r in cut], rtol=1e-5, atol=0)
    assert whole[0]["grad_norm"] != cut[0]["grad_norm"]


def test_a_run_that_goes_nan_ends_well_at_a_lower_rate(tmp_path: Path) -> None:
    spec = table_spec(tmp_path, learning_rate=10.0, **RECKLESS)
    result = lead(spec, "calmed")
    assert result is not None
    assert result.reason is Reason.DONE
    assert result.learning_rate is not None
    assert result.learning_rate < 5.0
    told = [row["message"] for row in run_of(spec, "calmed").rows("events") if row["kind"] == "calm"]
    assert told
    assert all("the rate is lower" in message for message in told)


def test_a_hopeless_run_says_what_it_tried(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, learning_rate=1e38, **RECKLESS)
    result = lead(spec, "hopeless")
    assert result is not None
    assert result.reason is Reason.LOSS_NAN
    assert "lowered before that: truncation 12 -> 6, learning_rate 1e+38" in result.message
