"""Makes a rank run out of memory for real at a chosen moment: the kernel refuses what torch's allocator asks for."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch

from jobs.spec import JobSpec
from trainers import checkpoint, loop, memory
from trainers.backend import Job, Processes
from trainers.group import Group
from trainers.session import Session

MIB = 2**20
Moment = Literal["forward", "backward", "optimizer", "evaluation", "save"]


def data_bytes() -> int:
    """What RLIMIT_DATA counts of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData")) * 1024


def starve() -> None:
    """Leave 16 MiB to this process and ask for 64."""
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + 16 * MIB, resource.RLIM_INFINITY))
    torch.empty(64 * MIB, dtype=torch.uint8)


@dataclass(frozen=True)
class Hunger:
    """One rank runs out of memory once `step` steps are done, at every attempt whose batch is above `fits`."""

    step: int
    fits: int
    moment: Moment = "forward"
    rank: int = 0

    @contextmanager
    def felt(self, batch: int, rank: int) -> Iterator[None]:
        """While the block runs, this process starves at the chosen moment if it is the rank to do so."""
        if rank != self.rank or batch <= self.fits:
            yield
            return
        limits = resource.getrlimit(resource.RLIMIT_DATA)
        with ExitStack() as stack:
            # An earlier limit of this process is not this one's: what was mapped then counts, too.
            stack.enter_context(mock.patch.object(memory, "_base", 0))
            stack.callback(lambda: resource.setrlimit(resource.RLIMIT_DATA, limits))
            self._patch(stack)
            yield

    def _starve_within(self, session: Session) -> None:
        """Have the step that comes next starve; no step comes after it, so nothing has to be undone."""
        if self.moment == "forward":
            session.model.register_forward_pre_hook(lambda *_: starve())
        elif self.moment == "backward":
            weight = next(p for p in session.model.parameters() if p.requires_grad)
            weight.register_post_accumulate_grad_hook(lambda _: starve())
        elif self.moment == "optimizer":
            session.optimizer.register_step_pre_hook(lambda *_: starve())

    def _patch(self, stack: ExitStack) -> None:
        done = [0]
        take_step, evaluate, write_state = loop.take_step, loop.evaluate, checkpoint.write_state

        def step(session: Session, *rest: Any) -> None:
            if session.progress.step >= self.step:
                self._starve_within(session)
            take_step(session, *rest)
            done[0] = session.progress.step

        def measure(*arguments: Any) -> None:
            if done[0] >= self.step and self.moment == "evaluation":
                starve()
            evaluate(*arguments)

        def write(*arguments: Any) -> int:
            if done[0] >= self.step and self.moment == "save":
                starve()
            return write_state(*arguments)

        stack.enter_context(mock.patch.object(loop, "take_step", step))
        stack.enter_context(mock.patch.object(loop, "evaluate", measure))
        stack.enter_context(mock.patch.object(checkpoint, "write_state", write))


@dataclass(frozen=True)
class HungryJob:
    """A job whose ranks feel hunger."""

    job: Job
    hunger: Hunger
    batch: int

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def attempt(self) -> int:
        return self.job.attempt

    def run(self, group: Group, device: torch.device, preempted: Callable[[], bool]) -> Any:
        with self.hunger.felt(self.batch, group.rank):
            return self.job.run(group, device, preempted)


class Hungry(Processes):
    """Processes that run out of memory; product code knows nothing of it. Notes the batch of each attempt."""

    def __init__(self, hunger: Hunger) -> None:
        super().__init__(start="fork")
        self.hunger = hunger
        self.batches: list[int] = []

    def run(self, job: Job, spec: JobSpec, abort: Callable[[], bool]) -> Any:
        assert isinstance(spec.batch, int)
        self.batches.append(spec.batch)
        return super().run(HungryJob(job, self.hunger, spec.batch), spec, abort)
