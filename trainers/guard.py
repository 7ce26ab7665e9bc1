"""What guards a rank's memory while it trains: a real limit on the CPU, and one kind of error when it runs out."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from jobs.spec import JobSpec
from trainers.failures import is_out_of_memory
from trainers.memory import MIB, lift_limit, limit_memory, shortage
from trainers.task import Shard

HEADROOM = 128 * MIB
"""Bytes beyond the declared limit for what no measurement of training counts: stacks of threads, buffers of Ray and
gloo, the text of logs. Without a margin a thread that cannot start would hang or end the process with no error."""


@contextmanager
def memory_limited(spec: JobSpec, device: torch.device) -> Iterator[None]:
    """Make the spec's memory limit real for this process while the block runs: the device's allocator then refuses.

    A model that outgrows its limit so becomes an error that says how much it asked for, instead of a process that
    the kernel kills, or one that takes a shared GPU from others. Nothing is limited without `memory_limit_mib`, and
    on a CPU where the system has no such limit.
    """
    if spec.memory_limit_mib is None:
        yield
        return
    limit = spec.memory_limit_mib * MIB
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)
    else:
        limit_memory(limit + HEADROOM)
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        else:
            lift_limit()


@contextmanager
def guarded(spec: JobSpec, shard: Shard, step: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Hold the block to the spec's memory limit; whatever allocator gives up in it, it is an OutOfMemoryError.

    `step` says, when that happens, which optimizer step was being computed; 0 before the first.
    """
    with memory_limited(spec, shard.device):
        try:
            yield
        except Exception as error:
            cause = memory_error_in(error)
            if cause is None:
                raise
            raise shortage(
                cause,
                shard.device,
                batch=shard.batch,
                bptt=getattr(spec, "bptt", None),
                rank=shard.rank,
                step=step(),
                limit=spec.memory_limit_mib and spec.memory_limit_mib * MIB,
            ) from error


def memory_error_in(error: BaseException) -> BaseException | None:
    """The allocator's error that is or led to this one: what cleans up after it may fail too and come on top."""
    return next((one for one in _history(error) if is_out_of_memory(one)), None)


def let_go(error: BaseException) -> None:
    """Free what the frames of a failed training hold: the next attempt may run in this very process."""
    for one in _history(error):
        traceback.clear_frames(one.__traceback__)
    gc.collect()
    torch.cuda.empty_cache()  # Does nothing where CUDA is not in use.


def _history(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or while handling, and so on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
