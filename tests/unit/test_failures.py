import pytest
import torch

from jobs.errors import DataError, LossNanError, Reason
from trainers.failures import classify


class ActorDiedError(Exception):
    """Named like Ray's."""


class WorkerGroupError(Exception):
    """Shaped like Ray Train's."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("Training failed due to worker errors")
        self.worker_failures = failures


def wrapped(cause: Exception) -> Exception:
    error = RuntimeError("wrapped by somebody")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LossNanError("nan at step 3"), Reason.LOSS_NAN),
        (wrapped(DataError("no rows")), Reason.BAD_DATA),
        (
            WorkerGroupError({0: LossNanError("nan"), 1: RuntimeError("Connection closed by peer [::1]:1")}),
            Reason.LOSS_NAN,
        ),
        (
            WorkerGroupError({0: RuntimeError("Connection closed by peer"), 1: ActorDiedError("gone")}),
            Reason.WORKER_LOST,
        ),
        (ActorDiedError("gone"), Reason.WORKER_LOST),
        (torch.OutOfMemoryError("CUDA out of memory"), Reason.OUT_OF_MEMORY),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            Reason.OUT_OF_MEMORY,
        ),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (RuntimeError("could not create a primitive"), Reason.OUT_OF_MEMORY),
        (RuntimeError("could not create a primitive descriptor for the LSTM forward propagation"), Reason.USER_CODE),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:1] writev [127.0.0.1]: Broken pipe"), Reason.WORKER_LOST),
        (RuntimeError("Timed out waiting 1800000ms for recv operation to complete"), Reason.WORKER_LOST),
        (ZeroDivisionError("division by zero"), Reason.USER_CODE),
    ],
)
def test_the_cause_that_says_most_decides(error: Exception, reason: Reason) -> None:
    found, message = classify(error)
    assert found is reason
    assert message
    assert "\n" not in message


def test_a_cycle_of_causes_ends() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify(first)[0] is Reason.USER_CODE
