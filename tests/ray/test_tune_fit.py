"""The fit as a Ray Tune searcher: on a synthetic trainable, and with real probes of a small language model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from jobs.errors import HighwaterError
from jobs.spec import JobSpec
from tests.unit.tiny import tiny_spec
from trainers.fit.sizes import Limits, Reading, Size
from trainers.task import prepare
from trainers.tune_fit import FitSearcher, probe_trial, reading_of

pytestmark = pytest.mark.ray
MIB = 2**20


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of our own that no other process shares."""
    before = {key: os.environ.pop(key, None) for key in ("RAY_ADDRESS",)}
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with tempfile.TemporaryDirectory(prefix="hw-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100_000_000,
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()
    os.environ.update({key: value for key, value in before.items() if value is not None})


def run(searcher: FitSearcher, trainable: Callable[[dict[str, Any]], None], folder: Path) -> tune.ResultGrid:
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(search_alg=searcher, num_samples=searcher.samples, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(folder), name="fit", verbose=0),
    )
    return tuner.fit()


def synthetic(config: dict[str, Any]) -> None:
    """1 MiB a row, of 100."""
    peak = (10 + config["batch"]) * MIB
    tune.report({"persistent": 10 * MIB, "peak": peak, "seconds": 0.1, "units": config["batch"]})


def broken(config: dict[str, Any]) -> None:
    raise ValueError("not a matter of memory")


def test_tune_finds_what_the_search_finds(cluster: None, tmp_path: Path) -> None:
    searcher = FitSearcher(Limits(budget=100 * MIB, reserve=0.0))
    results = run(searcher, synthetic, tmp_path)
    assert searcher.choice.size == Size(90)
    assert len(results) == len(searcher.search.readings) <= 6

    again = FitSearcher(Limits(budget=1))
    again.restore_from_dir(str(tmp_path / "fit"))
    assert again.choice == searcher.choice
    assert again.suggest("next") == "FINISHED"


def test_an_error_in_a_trial_ends_the_search_and_is_no_lack_of_memory(cluster: None, tmp_path: Path) -> None:
    searcher = FitSearcher(Limits(budget=100 * MIB))
    assert len(run(searcher, broken, tmp_path)) == 1
    with pytest.raises(HighwaterError, match="the trial at batch 8 ended with an error"):
        _ = searcher.choice


def test_real_probes_run_as_trials(cluster: None, tmp_path: Path) -> None:
    spec: JobSpec = tiny_spec(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    prepare(spec, data)
    budget = 64 * MIB
    searcher = FitSearcher(Limits(budget=budget, bptts=(8, 16), batch_max=32, probes=2), unit="tokens")
    run(searcher, probe_trial(spec, data, budget), tmp_path / "tune")
    choice = searcher.choice
    assert 1 <= choice.size.batch <= 32
    assert choice.size.bptt in (8, 16)
    reading = searcher.search.readings[0]
    assert 0 < reading.persistent < reading.peak < budget
    assert reading.rate > 0


def test_one_trial_at_a_time() -> None:
    searcher = FitSearcher(Limits(budget=100 * MIB, bptts=(8, 16)))
    assert searcher.suggest("a") == {"batch": 8, "bptt": 8}
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("b", {"peak": 1, "persistent": 1})
    assert searcher.suggest("b") is None, "that trial is not the one that runs"


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (None, "ended with an error"),
        ({"peak": 3}, "did not report persistent, in bytes"),
        ({"failed": "no data", "reason": "bad_data"}, "at batch 4: no data"),
    ],
)
def test_what_a_trial_must_report(result: dict[str, Any] | None, sentence: str) -> None:
    with pytest.raises(HighwaterError, match=sentence):
        reading_of(Size(4), result)
    full = reading_of(Size(4), {"failed": "too much", "reason": "out_of_memory", "training_iteration": 1})
    assert full == Reading(Size(4), failed="too much", reason="out_of_memory")
