import math
from itertools import pairwise

import pytest

from jobs.spec import Schedule
from trainers.schedule import Plan, plan_for, rate_at


def test_one_cycle_rises_to_the_peak_and_falls_to_the_end() -> None:
    schedule = Schedule(warmup_share=0.25, start_divisor=25, end_divisor=1e4)
    rates = [rate_at(schedule, 1.0, step, 101) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[25] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1e-4)
    assert all(b > a for a, b in pairwise(rates[:26]))
    assert all(b < a for a, b in pairwise(rates[25:]))


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.25, 1.0])
def test_the_shortest_runs_have_a_finite_positive_rate(steps: int, warmup: float) -> None:
    for step in range(steps):
        rate = rate_at(Schedule(warmup_share=warmup), 0.1, step, steps)
        assert math.isfinite(rate)
        assert 0 < rate <= 0.1


def test_constant_is_constant() -> None:
    assert {rate_at(Schedule(kind="constant"), 0.3, step, 10) for step in range(10)} == {0.3}


def test_a_plan_in_epochs_takes_each_epochs_own_length() -> None:
    plan = plan_for(3, None, lambda epoch: 10 + epoch)
    assert plan.epochs == (10, 11, 12)
    assert plan.steps == 33


def test_a_plan_in_steps_ends_within_an_epoch() -> None:
    assert plan_for(None, 25, lambda epoch: 10).epochs == (10, 10, 5)
    assert plan_for(None, 20, lambda epoch: 10).epochs == (10, 10)


def test_remaining_goes_on_in_the_middle_at_a_border_and_at_the_end() -> None:
    plan = Plan((4, 3))
    assert list(plan.remaining(0)) == [(0, 0, 4), (1, 0, 3)]
    assert list(plan.remaining(2)) == [(0, 2, 2), (1, 0, 3)]
    assert list(plan.remaining(4)) == [(1, 0, 3)]
    assert list(plan.remaining(6)) == [(1, 2, 1)]
    assert list(plan.remaining(7)) == []


def test_epoch_ends_are_found() -> None:
    plan = Plan((4, 3))
    assert [step for step in range(8) if plan.ends_epoch(step)] == [4, 7]
    assert [plan.epoch_of(step) for step in (0, 3, 4, 6, 7)] == [0, 0, 1, 1, 2]
