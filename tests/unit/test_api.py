"""The verbs as functions."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from jobs import api, submit
from jobs.display import Silent
from jobs.errors import HighwaterError, Reason, SpecError
from jobs.rundir import RunDir
from jobs.runner import to_resume
from jobs.specfile import load_spec
from jobs.status import status_of
from tests.unit.fakerun import FakeRun


def test_run_returns_the_record_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submit, "DRIVER_MODULE", "tests.unit.fakedriver")
    monkeypatch.setattr(submit, "require_train_extra", lambda modules: None)
    monkeypatch.setenv("FAKE_MODE", "done")
    result = api.run("language", set=["epochs=1"], name="x", storage=str(tmp_path), progress=False)
    assert isinstance(result, api.Result)
    assert result.reason is Reason.DONE
    assert capsys.readouterr() == ("", "")
    assert api.run("language", set=["epochs=1"], name="x", storage=str(tmp_path), progress=Silent()) == result
    assert api.status("x", storage=str(tmp_path)).result == result
    assert [run.name for run in api.runs(storage=str(tmp_path))] == ["x"]
    assert api.plan("language", set=["epochs=1"], name="x", storage=str(tmp_path)).verdict == "finished"


def test_bad_input_raises() -> None:
    with pytest.raises(SpecError, match="did you mean language"):
        api.run("langauge")


def test_recipes_and_schema() -> None:
    assert "language" in [recipe.name for recipe in api.recipes()]
    assert api.schema()


def test_doctor_returns_findings(tmp_path: Path) -> None:
    assert {check.name for check in api.doctor(storage=str(tmp_path)).checks} >= {"python", "storage", "clock"}


# Status


@pytest.fixture
def fake(tmp_path: Path) -> FakeRun:
    one = FakeRun(tmp_path)
    one.dir.write("spec.json", load_spec("language").model_dump(mode="json"))
    return one


def test_a_run_begins_goes_dies_resumes_and_ends(fake: FakeRun) -> None:
    now = time.time()
    assert status_of(fake.dir, now).state == "interrupted"
    fake.lease(1, beat_at=now, host="elsewhere")
    assert status_of(fake.dir, now).state == "waiting"
    fake.plan()
    fake.attempt()
    fake.steps(1, 10)
    status = status_of(fake.dir, now)
    assert (status.state, status.step, status.steps) == ("running", 10, 300)
    assert status.eta_s == pytest.approx(290.0)
    dead = status_of(fake.dir, now + 100)
    assert (dead.state, dead.eta_s) == ("interrupted", None)
    fake.result(Reason.STOPPED, finished_at=now + 1)
    fake.lease(1, beat_at=now, host="elsewhere", released=True)
    assert status_of(fake.dir, now + 2).state == "interrupted"
    fake.lease(2, beat_at=now + 5, process_started=now + 5, host="elsewhere")
    assert status_of(fake.dir, now + 6).state == "running"
    assert status_of(fake.dir, now + 6).result is None
    fake.attempt(resumed_step=10)
    fake.result(finished_at=now + 9, attempts=2)
    fake.lease(2, beat_at=now + 9, process_started=now + 5, host="elsewhere", released=True)
    ended = status_of(fake.dir, now + 10)
    assert (ended.state, ended.best, ended.message) == ("finished", 200.0, "Trained 3 epochs.")


def test_a_failed_run_says_so(fake: FakeRun) -> None:
    fake.result(Reason.LOSS_NAN, message="The loss is not finite.")
    assert (status_of(fake.dir).state, status_of(fake.dir).message) == ("failed", "The loss is not finite.")


def test_logs_cancel_and_pull(fake: FakeRun, tmp_path: Path) -> None:
    fake.dir.write("spec.json", {})
    fake.dir.store.put(fake.dir.key("logs/rank-0/0001-00000.log"), b"hello\n")
    assert api.logs(fake.dir.uri, rank=0) == "hello\n"
    assert api.cancel(fake.dir.uri, wait_s=1) == f"run {fake.dir.name} does not run: no driver is at it"
    folder = api.pull(fake.dir.uri, to=str(tmp_path / "here"))
    assert Path(folder, "logs/rank-0/0001-00000.log").read_bytes() == b"hello\n"


def test_a_run_goes_on_from_what_it_was_asked_for(fake: FakeRun) -> None:
    """A limit that was raised since is in the record of an attempt alone."""
    with pytest.raises(HighwaterError, match=r"has no spec\.json to go on from"):
        to_resume(RunDir(fake.dir.store, "other"))
    fake.dir.write("spec.json", {"task": "language", "steps": 10, "epochs": None})
    fake.attempt(spec={"steps": 30, "epochs": None})
    fake.attempt(spec={"steps": 20, "epochs": None})
    asked = to_resume(fake.dir, until="fit")
    assert json.loads(asked.spec) == {"task": "language", "steps": 30, "epochs": None}
    assert (asked.name, asked.until) == (fake.dir.name, "fit")
