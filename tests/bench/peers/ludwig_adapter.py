"""Ludwig's batch size tuner: doubles while the throughput grows. Its user gives the step."""

from __future__ import annotations

from typing import Any

from ludwig.utils.batch_size_tuner import BatchSizeEvaluator

from tests.bench.peers.subject import Subject


class Evaluator(BatchSizeEvaluator):  # type: ignore[misc]
    """Runs our step; Ludwig times it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def evaluate(self, batch_size: int, *args: Any, **kwargs: Any) -> float:
        def measure() -> float:
            self.trainee = self.subject.trainee(batch_size)
            throughput: float = super(Evaluator, self).evaluate(batch_size, *args, **kwargs)
            return throughput

        return self.subject.attempt(batch_size, measure) or 0.0

    def step(self, batch_size: int, global_max_sequence_length: int | None = None) -> None:
        self.trainee.step()


def throughput(subject: Subject) -> int:
    """The batch of the best throughput, as Ludwig's defaults find it; an example is one sequence of the data."""
    examples = subject.task(1).steps_in_epoch(0)
    found: int = Evaluator(subject).select_best_batch_size(dataset_len=examples)
    return found
