"""accelerate's `find_executable_batch_size`: comes down from a size that its user names."""

from __future__ import annotations

from accelerate.utils import find_executable_batch_size

from tests.bench.peers.subject import START, Subject


def decorated(subject: Subject) -> int:
    """With its default factor, 0.9."""

    @find_executable_batch_size(starting_batch_size=START)
    def train(batch_size: int) -> int:
        subject.run(batch_size)
        return batch_size

    found: int = train()
    return found
