"""Metrics as people read them, in the report and on terminals."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from jobs.display import line, outcome, progress
from jobs.follow import Follower
from jobs.live import picture
from jobs.metric import is_share, percent, spoken, written
from jobs.rundir import Row
from jobs.status import status_of
from jobs.table import details, table
from tests.unit.fakerun import PLAN, FakeRun


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("accuracy", 0.978, "97.8 %"), ("accuracy", 0.99523, "99.52 %"), ("accuracy", 0.9999999, "99.99 %"),
     ("accuracy", 1.0, "100 %"), ("macro_f1", 0.0, "0 %"), ("top_accuracy", 0.00012, "0.01 %"),
     ("f1", 1e-6, "0.0001 %"), ("MAPE", 0.0831, "8.31 %"), ("mape", 1.2, "120.0 %"), ("accuracy", 93.5, "93.5"),
     ("r2", 0.9134, "0.9134"),
     ("loss", 0.25, "0.25"), ("perplexity", 149.83, "149.8"), ("accuracy", math.nan, "nan")],
)  # fmt: skip
def test_values(name: str, value: float, text: str) -> None:
    assert written(name, value) == text


def test_names() -> None:
    names = ("macro_f1", "bits_per_character", "r2", "mape", "accuracy", "mean_average_precision", "")
    said = ["macro F1", "bits per character", "R\u00b2", "MAPE", "accuracy", "mean average precision", ""]
    assert [spoken(name) for name in names] == said
    assert [is_share(name) for name in names] == [True, False, False, True, True, True, False]
    assert percent(math.inf) == "inf %"


def evaluation(step: int, accuracy: float) -> Row:
    return {"kind": "eval", "step": step, "metrics": {"accuracy": accuracy, "loss": 0.5}, "time": 100.0 + step}


def test_terminals_show_shares_in_percent_and_what_is_high_as_best(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path)
    fake.lease()
    fake.append("events", PLAN | {"unit": "images", "metric": "accuracy", "goal": "max", "bptt": None})
    fake.attempt()
    fake.append("metrics", *(evaluation(s, a) for s, a in ((100, 0.5), (200, 0.975), (250, 0.975), (300, 0.96))))
    follower = Follower(fake.dir)
    told = [line(follower.view, update)[9:] for update in follower.poll() if update.kind == "eval"]
    assert told == [
        "step 100/300: accuracy 50.0 % (best so far), loss 0.5",
        "step 200/300: accuracy 97.5 % (best so far), loss 0.5",
        "step 250/300: accuracy 97.5 %, loss 0.5",
        "step 300/300: accuracy 96.0 %, loss 0.5",
    ]
    assert "accuracy 96.0 %" in progress(follower.view)
    console = Console(file=io.StringIO(), width=100)
    console.print(picture(follower.view, [], console, 0.0))
    assert "50.0 % to 96.0 %, best 97.5 %" in console.file.getvalue()  # type: ignore[attr-defined]
    status = status_of(fake.dir, now=61.0)
    assert (status.value, status.best) == (0.96, 0.975), "programs read the number itself"
    assert "accuracy 97.5 %" in table([status])
    assert "accuracy      96.0 % (best 97.5 %)" in details(status)


def test_the_last_line_names_best_and_baseline(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path)
    metrics = {"accuracy": 0.975, "loss": 0.1}
    baseline = {"accuracy": 0.1, "loss": 2.3}
    fake.result(metric="accuracy", metric_goal="max", metrics=metrics, best_metrics=metrics, baseline=baseline)
    follower = Follower(fake.dir)
    follower.poll()
    assert outcome(follower.view).endswith("best accuracy 97.5 % (baseline 10.0 %)")
