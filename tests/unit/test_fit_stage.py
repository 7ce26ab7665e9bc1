"""The fit stage within a run: found once, kept on resume, searched anew only where nothing was trained yet."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from jobs.errors import Reason
from jobs.rundir import RunDir
from jobs.spec import JobSpec
from tests.led import lead, run_of
from trainers.backend import Job, Processes
from trainers.driver import Driver
from trainers.fit.sizes import Size
from trainers.fit.stage import smallest_size, stored, with_sizes

from .tiny import tiny_spec

FOUND: dict[str, Any] = {"batch": 6, "bptt": 9, "workers": 1, "accumulation": 1, "why": "it fits"}


class Guessing(Processes):
    """Answers the search without one, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__(start="fork")
        self.searches = 0

    def run(self, job: Job, spec: JobSpec, abort: Any) -> Any:
        if not hasattr(job, "facts"):
            return super().run(job, spec, abort)
        self.searches += 1
        return FOUND | {"workers": spec.workers}


def auto_spec(folder: Path, **changes: Any) -> JobSpec:
    return tiny_spec(folder, **({"batch": "auto", "bptt": "auto", "steps": 6} | changes))


def test_a_size_is_found_by_real_probes_and_trained_at(tmp_path: Path) -> None:
    spec = auto_spec(tmp_path, memory_limit_mib=96, fit={"bptt_max": 16, "steps_per_epoch": 5, "probes": 3})
    result = lead(spec, "x")
    run = run_of(spec, "x")
    assert result is not None
    assert result.reason is Reason.DONE, result.message
    record = run.read("stages/fit.json")
    assert record is not None
    facts = record["facts"]
    assert result.batch == facts["batch"] == run.attempts()[0].batch
    assert facts["limit"] == 96 * 2**20
    assert [probe["purpose"] for probe in facts["probes"]][-1] == "soak"
    assert record["message"].endswith(facts["why"])
    assert facts["measured"] is None or facts["measured"] <= 96 * 2**20
    kinds = [row["kind"] for row in run.rows("events")]
    assert kinds.count("probe") == len(facts["probes"])


def test_what_was_found_is_not_searched_again(tmp_path: Path) -> None:
    spec, backend = auto_spec(tmp_path), Guessing()
    lead(spec, "x", backend)
    lead(auto_spec(tmp_path, steps=9), "x", backend)
    run = run_of(spec, "x")
    assert backend.searches == 1
    assert [attempt.batch for attempt in run.attempts()] == [6, 6]
    assert run.attempts()[1].spec["bptt"] == 9
    result = run.result()
    assert result is not None
    assert result.step == 9


def test_a_run_may_end_after_the_search_and_go_on_later(tmp_path: Path) -> None:
    spec, backend = auto_spec(tmp_path), Guessing()
    run = run_of(spec, "x")
    assert Driver(spec, run, backend, threading.Event()).lead("fit") is None
    assert (run.attempts(), run.result()) == ([], None)
    result = lead(spec, "x", backend)
    assert result is not None
    assert (result.reason, backend.searches) == (Reason.DONE, 1)


def test_a_stop_before_the_search_is_a_stop(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    result = lead(auto_spec(tmp_path), "x", Guessing(), stop)
    assert result is not None
    assert (result.reason, result.batch) == (Reason.STOPPED, None)


def test_other_workers_need_another_search_until_training_began(tmp_path: Path) -> None:
    spec = auto_spec(tmp_path)
    run: RunDir = run_of(spec, "x")
    run.write("stages/fit.json", {"stage": "fit", "facts": FOUND})
    assert stored(run, spec) == FOUND
    assert stored(run, spec.model_copy(update={"workers": 2})) is None
    run.write("attempts/0001.json", {})
    assert stored(run, spec.model_copy(update={"workers": 2})) == FOUND


def test_only_auto_is_replaced(tmp_path: Path) -> None:
    assert with_sizes(auto_spec(tmp_path, batch=4), FOUND).model_dump()["batch"] == 4
    assert with_sizes(auto_spec(tmp_path), FOUND).model_dump()["bptt"] == 9
    assert smallest_size(auto_spec(tmp_path, fit={"bptt_min": 12})) == Size(1, 12)


def test_what_cannot_fit_is_refused_before_any_worker_starts(tmp_path: Path) -> None:
    backend = Guessing()
    model = {"kind": "awd-lstm", "embedding": 256, "hidden": 512, "layers": 2}
    result = lead(auto_spec(tmp_path, model=model, memory_limit_mib=2), "x", backend)
    assert result is not None
    assert result.reason is Reason.OUT_OF_MEMORY
    assert "missing" in result.message
    assert backend.searches == 0
