import math

import pytest
import torch

from jobs.errors import LossNanError, Reason
from jobs.spec import Checkpointing, Evaluation, Optimizer, Schedule
from trainers import loop
from trainers.loop import Pending, take_step, train
from trainers.optim import should_average
from trainers.session import global_rows
from trainers.task import Shard

from .toy import MemoryWorker, run, toy_session, toy_spec


def test_every_step_is_reported_once_and_in_order() -> None:
    ended, worker = run()
    assert (ended.reason, ended.step, ended.steps, ended.epoch) == (Reason.DONE, 21, 21, 3)
    assert [step for step, _ in worker.curve()] == list(range(1, 22))
    assert [row["step"] for row in worker.rows if row["kind"] == "eval"] == [7, 14, 21]
    assert all(math.isfinite(loss) for _, loss in worker.curve())
    assert {row["epoch"] for row in worker.rows if row["kind"] == "step"} == {0, 1, 2}


def test_one_seed_gives_one_curve_and_another_seed_another() -> None:
    assert run()[1].curve() == run()[1].curve()
    assert run()[1].curve() != run(toy_spec(seed=1))[1].curve()


@pytest.mark.parametrize("stop_at", [1, 5, 6, 7, 13, 18])
@pytest.mark.parametrize("kind", ["adamw", "sgd", "nt-asgd"])
def test_a_stopped_run_goes_on_bit_for_bit(stop_at: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SYNC_S", 0.0)
    optimizer = Optimizer(kind=kind, trigger_evaluations=1)  # type: ignore[arg-type]
    spec = toy_spec(optimizer=optimizer, schedule=Schedule(kind="constant"))
    whole, straight = run(spec)
    first, stopped = run(spec, MemoryWorker(stop_at=stop_at))
    assert first.reason is Reason.STOPPED
    torch.manual_seed(12345)  # The new process starts from other random states.
    second, resumed = run(spec, MemoryWorker(saved=stopped.saved))
    assert stopped.curve() + resumed.curve() == straight.curve()
    assert (second.metrics, second.best_metrics, second.best_step) == (
        whole.metrics,
        whole.best_metrics,
        whole.best_step,
    )


def test_a_run_resumed_at_its_very_end_is_done() -> None:
    whole, worker = run()
    again, resumed = run(worker=MemoryWorker(saved=worker.saved))
    assert again.reason is Reason.DONE
    assert again.metrics == whole.metrics
    assert resumed.rows == []


def test_the_loss_that_is_not_a_number_ends_the_run_before_it_is_saved() -> None:
    worker = MemoryWorker()
    with pytest.raises(LossNanError, match="step 12"):
        run(worker=worker, nan_at=11)
    assert worker.rows[-1]["step"] == 12
    assert max(worker.saves) < 12
    assert worker.saved is not None
    assert all(torch.isfinite(t).all() for t in worker.saved["shared"]["model"].values())


def test_a_gradient_that_is_not_a_number_is_not_saved_either(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = toy_spec(checkpointing=Checkpointing(every_steps=1, every_s=1e9))
    worker, session = MemoryWorker(), toy_session(spec)
    ordinary = loop.clip

    def clip(model: torch.nn.Module, limit: float | None) -> torch.Tensor:
        norm = ordinary(model, limit)
        return norm * float("nan") if session.progress.step == 5 else norm  # of step 6, whose loss is fine

    monkeypatch.setattr(loop, "clip", clip)
    with pytest.raises(LossNanError, match="norm became nan at step 6"):
        train(session, worker)
    assert worker.saves == [1, 2, 3, 4, 5]


def test_a_run_that_stopped_early_stays_stopped() -> None:
    still = {"learning_rate": 1e-9, "schedule": Schedule(kind="constant"), "evaluation": Evaluation(patience=1)}
    spec = toy_spec(epochs=30, **still)
    ended, worker = run(spec, dropout=0.0)
    assert ended.step < ended.steps
    again, resumed = run(spec, MemoryWorker(saved=worker.saved), dropout=0.0)
    assert (again.step, again.message, resumed.curve()) == (ended.step, ended.message, [])


@pytest.mark.parametrize("seed", [0, 2**33, 2**63 - 1])
def test_any_seed_of_the_spec_trains(seed: int) -> None:
    assert run(toy_spec(seed=seed, epochs=1))[0].reason is Reason.DONE


def test_the_average_begins_when_the_metric_is_worse_than_it_was_so_many_evaluations_ago() -> None:
    assert not should_average([1.0, 2.0], "min", 1)
    assert should_average([1.0, 2.0, 1.5], "min", 1)
    assert not should_average([1.0, 2.0, 0.5], "min", 1)
    assert should_average([0.9, 0.5, 0.8], "max", 1)


def test_early_stop_ends_after_the_set_number_of_bad_evaluations() -> None:
    spec = toy_spec(
        epochs=30, learning_rate=1e-9, schedule=Schedule(kind="constant"), evaluation=Evaluation(patience=2)
    )
    ended, worker = run(spec, dropout=0.0)
    assert ended.reason is Reason.DONE
    assert ended.step < ended.steps
    assert "stopped early" in ended.message
    evaluations = [row for row in worker.rows if row["kind"] == "eval"]
    bad = 0
    for row in evaluations:
        bad = 0 if row["best"] else bad + 1
    assert bad == 2


def test_steps_end_within_an_epoch_with_an_evaluation() -> None:
    ended, worker = run(toy_spec(epochs=None, steps=10))
    assert ended.step == 10
    assert [row["step"] for row in worker.rows if row["kind"] == "eval"] == [7, 10]


def test_saves_follow_evaluations_and_the_set_interval() -> None:
    _, worker = run(toy_spec(checkpointing=Checkpointing(every_steps=5, every_s=1e9)))
    assert worker.saves == [5, 7, 10, 14, 15, 20, 21]


def test_saves_follow_the_clock() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.3
        return now[0]

    worker = MemoryWorker()
    train(toy_session(toy_spec(epochs=1, checkpointing=Checkpointing(every_s=0.1)), epoch_steps=30), worker, clock)
    assert len(worker.saves) > 3


def test_accumulation_is_the_larger_batch() -> None:
    _, one = run(toy_spec(batch=8, accumulation=1), dropout=0.0)
    _, two = run(toy_spec(batch=4, accumulation=2), dropout=0.0)
    for (_, a), (_, b) in zip(one.curve(), two.curve(), strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_the_rate_of_a_step_follows_schedule_and_length() -> None:
    _, worker = run(toy_spec(schedule=Schedule(kind="constant")))
    rates = [row["rate"] for row in worker.rows if row["kind"] == "step"]
    assert rates[:7] == pytest.approx([0.05 * (0.5 + index / 10) for index in range(7)])


def test_gradients_are_clipped_and_their_norm_is_told() -> None:
    session = toy_session(toy_spec(clip_norm=1e-3, optimizer=Optimizer(kind="sgd"), schedule=Schedule(kind="constant")))
    before = [p.detach().clone() for p in session.model.parameters()]
    pending = Pending(lambda: 0.0)
    take_step(session, next(session.task.steps(0, 0)), pending)
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, session.model.parameters(), strict=True)]).norm()
    assert moved.item() == pytest.approx(1e-3 * 0.05 * 0.5, rel=1e-3)
    assert pending.norms[0].item() > 1e-3


def test_nt_asgd_evaluates_the_mean_once_it_has_begun() -> None:
    spec = toy_spec(
        epochs=12,
        learning_rate=0.5,
        optimizer=Optimizer(kind="nt-asgd", trigger_evaluations=1),
        schedule=Schedule(kind="constant"),
    )
    session, worker = toy_session(spec), MemoryWorker()
    train(session, worker)
    assert [kind for kind, _ in worker.events] == ["averaging"]
    assert session.averager.active
    assert session.averager.evaluated(session.model) is not session.model


@pytest.mark.parametrize(("workers", "accumulation"), [(1, 4), (2, 2), (4, 1)])
def test_carries_become_rows_of_the_global_batch_whatever_the_world_size(workers: int, accumulation: int) -> None:
    rows = torch.arange(8.0).reshape(8, 1)
    shards = [Shard(rank, workers, 2, accumulation, torch.device("cpu")) for rank in range(workers)]
    carries = [[(rows[shard.rows(micro)],) for micro in range(accumulation)] for shard in shards]
    assert torch.equal(global_rows(carries)[0], rows)  # type: ignore[arg-type]
