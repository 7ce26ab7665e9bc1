"""The language task over eight documents of random words, with networks so small that a test takes no time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.spec_language import LanguageSpec
from trainers.language import prepare

QUIET = {f"dropout_{place}": 0.0 for place in ("output", "hidden", "input", "embedding")}
SMALL = {"embedding": 16, "hidden": 24, "layers": 2, **QUIET}
LSTM = {"kind": "awd-lstm", "dropout_weight": 0.0, **SMALL}
QRNN = {"kind": "qrnn", **SMALL}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_spec(source: Path | str, **changes: Any) -> LanguageSpec:
    """A spec without dropout over four streams."""
    fields: dict[str, Any] = {
        "task": "language",
        "data": {"source": str(source), "min_count": 1, "validation_share": 0.25},
        "model": LSTM,
        "batch": 4,
        "bptt": 10,
        "bptt_jitter": {"min_steps": 2, "std": 2.0},
        "learning_rate": 1e-2,
        "epochs": 1,
    }
    return LanguageSpec.model_validate(fields | changes)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight documents of eighty words."""
    path = tmp_path_factory.mktemp("corpus") / "c.jsonl"
    draw = np.random.default_rng(0)
    rows = [{"text": " ".join(f"w{chr(97 + w)}" for w in draw.integers(0, 20, 80))} for _ in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def data(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, prepared."""
    out = tmp_path_factory.mktemp("data")
    prepare(small_spec(source), out)
    return out
