"""Layer groups: which are trained when, how fast, and that a resume and a second worker change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.errors import SpecError
from jobs.spec import LayerGroups, Optimizer
from tests.led import lead, run_of
from trainers import loop
from trainers.loop import train
from trainers.schedule import trained_groups

from .tiny import curve, tiny_spec
from .toy import MemoryWorker, ToyTask, run, toy_session, toy_spec

HALF = LayerGroups(rate_factor=0.5, frozen=1, thaw_share=0.5)


@pytest.mark.parametrize(
    ("layers", "counts"),
    [
        (LayerGroups(), [4] * 8),
        (LayerGroups(frozen=3), [1] * 8),
        (LayerGroups(frozen=3, thaw_share=0.5), [1, 1, 1, 1, 4, 4, 4, 4]),
        (LayerGroups(frozen=3, thaw_share=0.0), [4] * 8),
        (LayerGroups(frozen=2, thaw_share=0.5, gradual=True), [2, 2, 3, 3, 4, 4, 4, 4]),
        (LayerGroups(frozen=3, thaw_share=0.75, gradual=True), [1, 1, 2, 2, 3, 3, 4, 4]),
    ],
)
def test_groups_thaw_from_the_output(layers: LayerGroups, counts: list[int]) -> None:
    assert [trained_groups(layers, 4, step, 8) for step in range(8)] == counts


def test_a_frozen_group_keeps_its_weights_until_it_thaws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SYNC_S", 0.0)
    session, worker = toy_session(toy_spec(layer_groups=HALF)), MemoryWorker(stop_at=10)
    before = session.model.mix.weight.clone()  # type: ignore[union-attr, operator]
    head = session.model.out.weight.clone()  # type: ignore[union-attr, operator]
    train(session, worker)
    assert 10 <= session.progress.step <= 11, "the step that follows is the first to train both groups"
    assert torch.equal(session.model.mix.weight, before)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(session.model.out.weight, head)  # type: ignore[union-attr, arg-type]
    whole, told = run(toy_spec(layer_groups=HALF))
    assert whole.step == 21
    assert [event for event in told.events if event[0] == "thaw"] == [
        ("thaw", "2 of 2 layer groups are trained from step 11 on")
    ]


@pytest.mark.parametrize("stop_at", [4, 10, 11, 17])
def test_a_stopped_run_thaws_as_one_that_was_not(stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SYNC_S", 0.0)
    spec = toy_spec(layer_groups=HALF)
    _, straight = run(spec)
    _, stopped = run(spec, MemoryWorker(stop_at=stop_at))
    _, resumed = run(spec, MemoryWorker(saved=stopped.saved))
    assert stopped.curve() + resumed.curve() == straight.curve()


def test_each_group_has_its_rate() -> None:
    session = toy_session(toy_spec(layer_groups=LayerGroups(rate_factor=0.25), optimizer=Optimizer(kind="sgd")))
    pending = loop.Pending(lambda: 0.0)
    loop.take_step(session, next(session.task.steps(0, 0)), pending)
    first, last = (group["lr"] for group in session.optimizer.param_groups)
    assert first == last / 4 == pending.rows[0]["rate"] / 4


def test_freezing_everything_is_a_sentence() -> None:
    with pytest.raises(SpecError, match="leaves nothing to train: the model has 2 layer groups"):
        toy_session(toy_spec(layer_groups=LayerGroups(frozen=2)))


def test_a_task_that_forgets_a_parameter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyTask, "groups", lambda self, model: [list(model.mix.parameters())])
    with pytest.raises(TypeError, match="do not hold each"):
        toy_session()


def test_two_workers_thaw_as_one_does(tmp_path: Path) -> None:
    model = {"kind": "awd-lstm", "embedding": 16, "hidden": 16, "layers": 2}
    model |= {f"dropout_{part}": 0.0 for part in ("output", "hidden", "input", "embedding", "weight")}
    more = {"steps": 12, "layer_groups": {"frozen": 2, "thaw_share": 0.5, "gradual": True}}
    one = tiny_spec(tmp_path, workers=1, batch=4, model=model, **more)
    two = tiny_spec(tmp_path, workers=2, batch=2, model=model, **more)
    lead(one, "one")
    lead(two, "two")
    alone, together = ([row[2] for row in curve(run_of(one, name)) if row[0] == "step"] for name in ("one", "two"))
    assert alone == pytest.approx(together, rel=1e-5)
    assert sum(row["kind"] == "thaw" for row in run_of(two, "two").rows("events")) == 2
