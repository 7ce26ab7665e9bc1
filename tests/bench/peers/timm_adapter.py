"""timm's retry: the loop of its own benchmark script, around the two functions that the script takes from timm."""

from __future__ import annotations

from timm.utils import check_batch_size_retry, decay_batch_step

from tests.bench.peers.subject import START, Subject


def retry(subject: Subject) -> int:
    """Down by half powers of two."""
    batch = START
    while batch:
        try:
            subject.run(batch)
        except RuntimeError as error:
            if not check_batch_size_retry(str(error)):
                raise
            batch = decay_batch_step(batch)
        else:
            return batch
    raise RuntimeError("no batch size is left to try")
