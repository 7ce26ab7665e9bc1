"""Writes a run directory by hand, as a driver would, for tests of what reads one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.disk import DiskStore
from jobs.errors import Reason
from jobs.rundir import Attempt, Lease, Result, Row, RunDir, segment_key, strict_json

PLAN: Row = {
    "kind": "plan",
    "time": 99.0,
    "message": "3 epochs of 100 steps",
    "steps": 300,
    "epochs": 3,
    "unit": "tokens",
    "metric": "perplexity",
    "goal": "min",
    "batch": 16,
    "bptt": 70,
    "workers": 2,
    "accumulation": 1,
    "global_batch": 32,
    "rate": 0.003,
}


class FakeRun:
    """Appends rows to segments that are replaced as a whole, like the real streams."""

    def __init__(self, root: Path, name: str = "demo") -> None:
        self.dir = RunDir(DiskStore(root), name)
        self.number = 0
        self._data: dict[str, bytes] = {}

    def attempt(self, resumed_step: int = 0, **changes: Any) -> None:
        self.number += 1
        values: Row = {
            "number": self.number,
            "started_at": 100.0 * self.number,
            "host": "here",
            "resumed_step": resumed_step,
            "checkpoint": None,
            "workers": 2,
            "batch": 16,
            "accumulation": 1,
            "environment": {},
            "spec": {},
        }
        self.dir.write(f"attempts/{self.number:04d}.json", Attempt.model_validate(values | changes))

    def lease(self, number: int = 1, **changes: Any) -> Lease:
        values: Row = {"number": number, "owner": "me", "host": "here", "pid": 4, "process_started": 50.0}
        lease = Lease.model_validate(values | {"beat_at": 60.0} | changes)
        self.dir.write(f"leases/{number:04d}.json", lease)
        return lease

    def append(self, stream: str, *rows: Row, tail: bytes = b"", segment: int = 0) -> None:
        key = segment_key(stream, self.number, segment)
        self._data[key] = self._data.get(key, b"") + b"".join(strict_json(row) + b"\n" for row in rows)
        self.dir.store.put(self.dir.key(key), self._data[key] + tail)

    def steps(self, first: int, last: int, seconds: float = 1.0) -> None:
        start = 100.0 * self.number
        self.append("metrics", *(step_row(step, start + step * seconds) for step in range(first, last + 1)))

    def evaluation(self, step: int, perplexity: float | None) -> None:
        row: Row = {"kind": "eval", "step": step, "epoch": 1, "metrics": {"perplexity": perplexity}, "best": True}
        self.append("metrics", row | {"seconds": 0.5, "time": 100.0 * self.number + step})

    def plan(self) -> None:
        self.append("events", PLAN)

    def result(self, reason: Reason = Reason.DONE, **changes: Any) -> Result:
        record = result(self.dir.name, reason, **changes)
        self.dir.write("result.json", record)
        return record


def step_row(step: int, time: float) -> Row:
    return {
        "kind": "step",
        "step": step,
        "epoch": 1,
        "loss": 6.0 / step,
        "rate": 0.003,
        "grad_norm": 1.0,
        "units": 2240,
        "time": time,
    }


def result(name: str = "demo", reason: Reason = Reason.DONE, **changes: Any) -> Result:
    values: Row = {
        "name": name,
        "task": "language",
        "reason": reason,
        "message": "Trained 3 epochs.",
        "finished_at": 500.0,
        "attempts": 1,
        "step": 300,
        "steps": 300,
        "epoch": 3,
        "seconds": 400.0,
        "batch": 16,
        "workers": 2,
        "accumulation": 1,
        "global_batch": 32,
        "learning_rate": 0.003,
        "metric": "perplexity",
        "metric_goal": "min",
        "metrics": {"perplexity": 210.0},
        "best_metrics": {"perplexity": 200.0},
        "best_step": 200,
        "best_checkpoint": None,
        "baseline": {"perplexity": 700.0},
    }
    return Result.model_validate(values | changes)
