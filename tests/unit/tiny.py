"""A real language run that takes a second: a small corpus of generated text and a small network."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from jobs.rundir import RunDir
from jobs.spec import JobSpec
from jobs.specfile import spec_from_json

#: Enough for masks to matter, little enough for so small a network to learn.
DROPOUT = {f"dropout_{part}": 0.1 for part in ("output", "hidden", "input", "embedding", "weight")}


def corpus(folder: Path, documents: int = 12, words: int = 400) -> Path:
    """A folder of text files that are easy to predict, the same ones each time."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(7)
    sentences = ["the cat sat on the mat .", "a dog ran to the house .", "we saw the sea and the sky ."]
    for number in range(documents):
        text = " ".join(draw.choice(sentences) for _ in range(words // 7))
        (folder / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    return folder


def document(folder: Path, **changes: Any) -> dict[str, Any]:
    """A spec over that corpus with storage beside it; dropout and jitter are on, so that random states matter."""
    base: dict[str, Any] = {
        "task": "language",
        "data": {"source": str(corpus(folder / "text")), "min_count": 1},
        "model": {"kind": "awd-lstm", "embedding": 16, "hidden": 16, "layers": 2} | DROPOUT,
        "batch": 4,
        "bptt": 12,
        "bptt_jitter": {"std": 2, "min_steps": 4, "max_extra": 4},
        "learning_rate": 0.02,
        "steps": 60,
        "clip_norm": 0.5,
        "storage": str(folder / "runs"),
        "checkpointing": {"every_steps": 5, "every_s": 1000.0},
    }
    return base | changes


def tiny_spec(folder: Path, **changes: Any) -> JobSpec:
    return spec_from_json(document(folder, **changes))


def curve(run: RunDir) -> list[tuple[Any, ...]]:
    """Everything in the run's metrics that must be equal bit for bit."""
    rows = run.rows("metrics")
    steps = [("step", r["step"], r["loss"], r["rate"], r["grad_norm"], r["units"]) for r in rows if r["kind"] == "step"]
    evals = [("eval", r["step"], tuple(sorted(r["metrics"].items())), r["best"]) for r in rows if r["kind"] == "eval"]
    return steps + evals
