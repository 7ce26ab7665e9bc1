"""Whether preflight knows what the Transformer takes, and what its context past the cuts is worth.

`python -m tests.bench.transformer [--steps 150]`. First the recipe `language-transformer` at several sizes: preflight's
estimate beside what a probe measures in a process of its own. Then the recipe trained for some steps and evaluated
twice: with the state carried along, as everywhere, and with every sequence begun blind, as without a state.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

import torch

from jobs.spec import JobSpec
from jobs.specfile import load_spec
from tests.bench.common import exit_code
from trainers import bptt, loop
from trainers.fit.preflight import preflight
from trainers.fit.prober import Prober
from trainers.fit.sizes import Size
from trainers.language import LanguageTask
from trainers.models.lm import LanguageModel
from trainers.models.wrapped import evaluating
from trainers.session import Session
from trainers.task import Shard, load, prepare

CPU = torch.device("cpu")
MIB = 2**20
GOAL = 0.15
"""Largest relative error of an estimate."""
SIZES = (Size(8, 32), Size(20, 64), Size(96, 64), Size(10, 256), Size(4, 512), Size(64, 128))
TRAINED = Size(20, 64)


def estimates(spec: JobSpec, data: Path) -> bool:
    """Print estimate and measurement of every size; whether all are as near as the goal."""
    found = preflight(spec, data)
    worst = 0.0
    print(f"{'size':<20}{'estimate':>12}{'measured':>12}{'error':>9}")
    with Prober(spec, data, 0, 1, CPU) as prober:
        for size in SIZES:
            reading = prober.probe(size, None)
            if reading.failed:
                print(f"{size}: {reading.failed}")
                return False
            said, real = found.highest(size), reading.highest
            worst = max(worst, abs(said / real - 1))
            print(f"{size!s:<20}{said / MIB:>8.1f} MiB{real / MIB:>8.1f} MiB{said / real - 1:>+9.1%}", flush=True)
    print(f"worst error {worst:.1%} (goal: <= {GOAL:.0%})")
    return worst <= GOAL


def trained(spec: JobSpec, data: Path) -> Session:
    """A session after all steps of the spec."""
    shard = Shard(0, 1, TRAINED.batch, 1, CPU)
    session = Session(spec, load(spec, data, shard), shard)
    session.wrapped.train()
    pending = loop.Pending(time.monotonic)
    for epoch, start, count in session.plan.remaining(0):
        session.carries = session.task.carries()
        steps = session.task.steps(epoch, start)
        for _ in range(count):
            loop.take_step(session, next(steps), pending)
    return session


def blind(task: LanguageTask, session: Session) -> float:
    """Perplexity where every sequence begins without a state."""
    targets, rows, steps = len(task._validation) - 1, TRAINED.batch, task.bptt
    per_stream = -(-targets // rows)
    stream = torch.from_numpy(bptt.streams(task._validation, per_stream, slice(0, rows)))
    counted = torch.from_numpy(bptt.counted(targets, per_stream, slice(0, rows)))
    total = 0.0
    with evaluating(session.model, LanguageModel) as model:
        for begin in range(0, per_stream, steps):
            end = min(begin + steps, per_stream)
            nats, _ = model.surprisal(stream[begin:end], stream[begin + 1 : end + 1], model.state(rows))
            total += float((nats.double() * counted[begin:end]).sum())
    return math.exp(total / targets)


def context(spec: JobSpec, data: Path) -> bool:
    """Print perplexity with and without the state; whether the state makes it better."""
    session = trained(spec, data)
    task = session.task
    if not isinstance(task, LanguageTask):
        raise TypeError("the recipe is of another task")
    carried = task.metrics(task.evaluate(session.model))["perplexity"]
    without = blind(task, session)
    worth = f"{without:.1f} with blind sequences of {TRAINED.bptt} pieces: {without / carried - 1:+.1%}"
    print(f"after {spec.steps} steps: perplexity {carried:.1f} with the state, {worth}")
    return carried < without


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150, help="optimizer steps before the evaluations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = load_spec("language-transformer", ["workers=1", "memory_limit_mib=4096"])
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        prepare(spec, data)
        near = estimates(spec, data)
        size = {"batch": TRAINED.batch, "bptt": TRAINED.bptt, "epochs": None, "steps": options.steps}
        worth = context(spec.model_copy(update=size), data)
    print(f"{time.monotonic() - began:.0f} s")
    return exit_code(near and worth)


if __name__ == "__main__":
    sys.exit(main())
