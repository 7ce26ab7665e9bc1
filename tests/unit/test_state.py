import pickle

import pytest

from jobs import errors
from jobs.errors import EXIT_CODES, HighwaterError, OutOfMemoryError, Reason
from jobs.state import RETRIES, STATES, Ended, State, worth_retrying


@pytest.mark.parametrize("table", [STATES, RETRIES, EXIT_CODES], ids=["states", "retries", "exit codes"])
def test_every_table_over_reasons_is_total(table: dict[Reason, object]) -> None:
    assert set(table) == set(Reason)


def test_only_a_finished_run_exits_with_zero() -> None:
    assert [reason for reason, code in EXIT_CODES.items() if code == 0] == [Reason.DONE]
    assert STATES[Reason.DONE] is State.FINISHED


def test_every_error_survives_a_trip_between_processes() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, HighwaterError)]
    kinds.remove(OutOfMemoryError)  # Made with facts instead of a reason: see the tests of shrinking.
    for kind in kinds:
        error = pickle.loads(pickle.dumps(kind("one sentence", Reason.STOPPED)))
        assert (type(error), str(error), error.reason) == (kind, "one sentence", Reason.STOPPED)
        assert pickle.loads(pickle.dumps(kind("x"))).reason == kind.reason


@pytest.mark.parametrize(
    ("history", "again"),
    [
        ([(Reason.WORKER_LOST, 0)], True),
        ([(Reason.WORKER_LOST, 5)] * 3, True),
        ([(Reason.WORKER_LOST, 5)] * 4, False),
        ([(Reason.WORKER_LOST, 5)] * 3 + [(Reason.WORKER_LOST, 6)], True),
        ([(Reason.PREEMPTED, 5)] * 4, True),
        ([(Reason.PREEMPTED, 5)] * 4 + [(Reason.WORKER_LOST, 5)], True),
        ([(Reason.PREEMPTED, 5)] * 30, False),
        ([(Reason.LOSS_NAN, 5)], False),
        ([(Reason.USER_CODE, 5)], False),
        ([(Reason.OUT_OF_MEMORY, 5)], False),
        ([(Reason.OUT_OF_MEMORY, 5)] * 3 + [(Reason.WORKER_LOST, 5)], True),
        ([(Reason.DONE, 5)], False),
    ],
)
def test_each_cause_has_its_own_bounded_budget(history: list[tuple[Reason, int]], again: bool) -> None:
    assert worth_retrying([Ended(reason, step) for reason, step in history]) is again
