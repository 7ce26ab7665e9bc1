"""A driver in a pod: which ends it does not repeat, and how it waits for a lost predecessor."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from infra.disk import DiskStore
from jobs.errors import EXIT_CODES, HighwaterError, Reason
from jobs.rundir import RunDir
from jobs.state import ELSEWHERE
from jobs.submission import Submission, refusal
from tests.unit.stores import lease, small_spec
from tests.unit.test_admission import a_result
from trainers import rayjob, run


def told(folder: Path, submission: str = "abc", **changes: str) -> dict[str, str]:
    spec = small_spec().model_copy(update={"storage": str(folder)})
    named = {"HIGHWATER_NAME": "first", "HIGHWATER_SPEC": spec.model_dump_json(), "HIGHWATER_SUBMISSION": submission}
    return named | changes


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was driven: a driver that does nothing notes its arguments here."""
    calls: list[Any] = []

    def drive(*arguments: Any, **named: Any) -> None:
        calls.append(arguments)

    monkeypatch.setattr(rayjob, "drive", drive)
    monkeypatch.setattr(rayjob, "_stop_job", lambda: calls.append("stopped"))
    return calls


def drive(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> int:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return rayjob.main(environ)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.DONE])
def test_a_retry_repeats_only_what_another_cluster_may_mend(
    reason: Reason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[Any]
) -> None:
    directory = RunDir(DiskStore(tmp_path), "first")
    directory.write("control/submission.json", Submission(id="abc", began=100.0))
    directory.write("result.json", a_result(reason))
    code = drive(monkeypatch, told(tmp_path))
    if ELSEWHERE[reason]:
        assert (code, len(started)) == (0, 1)
    else:
        assert (code, started) == (EXIT_CODES[reason], ["stopped"])


def test_a_new_submission_begins_whatever_the_last_one_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[Any]
) -> None:
    directory = RunDir(DiskStore(tmp_path), "first")
    directory.write("control/submission.json", Submission(id="abc", began=100.0))
    directory.write("result.json", a_result(Reason.LOSS_NAN))
    assert drive(monkeypatch, told(tmp_path, "another")) == 0
    assert len(started) == 1


def test_what_was_refused_is_refused_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], started: list[Any]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        started.append("drive")
        raise HighwaterError("there is no file x", Reason.BAD_DATA)

    monkeypatch.setattr(rayjob, "drive", refuse)
    assert drive(monkeypatch, told(tmp_path)) == drive(monkeypatch, told(tmp_path)) == 2
    assert started == ["drive", "stopped", "stopped"]
    assert capsys.readouterr().err == "highwater: there is no file x\n" * 2


def test_a_spec_that_cannot_be_read_leaves_word_where_the_chart_sends_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[Any]
) -> None:
    changes = json.dumps([f'storage="{tmp_path}"', "no.such.field=1"])  # quoted, as the chart renders it
    assert drive(monkeypatch, told(tmp_path, HIGHWATER_SPEC="language", HIGHWATER_SET=changes)) == 2
    assert started == ["stopped"]
    error = refusal(RunDir(DiskStore(tmp_path), "first"), "abc")
    assert error is not None
    assert "no.such.field" in error.message


@pytest.mark.parametrize("missing", ["HIGHWATER_NAME", "HIGHWATER_SPEC", "HIGHWATER_SUBMISSION"])
def test_without_what_a_rayjob_tells_it_says_so(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drive(monkeypatch, told(tmp_path) | {missing: ""}) == 2
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize(("text", "said"), [("[", "is not JSON"), ("{}", "not a list"), ("[1]", "not a list")])
def test_overrides_that_are_no_list_are_one_sentence(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drive(monkeypatch, told(tmp_path, HIGHWATER_SET=text)) == 2
    assert said in capsys.readouterr().err


def test_a_lost_predecessor_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small_spec()
    directory = RunDir(DiskStore(tmp_path), "first")
    directory.write("spec.json", spec)
    beat = time.time() - 27  # the lease is stale after 30 s
    directory.write("leases/0001.json", lease(host="a-lost-pod", beat_at=beat))
    began = time.monotonic()
    admission = run.admitted(directory, spec, 20.0, threading.Event())
    assert admission.verdict is run.Verdict.RESUME
    assert 1 < time.monotonic() - began < 15


@pytest.mark.parametrize("after", [True, False])
def test_a_stop_that_found_no_driver_is_heeded_by_the_next_one(
    after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[Any]
) -> None:
    directory = RunDir(DiskStore(tmp_path), "first")
    writes = [("control/submission.json", Submission(id="abc", began=100.0)), ("control/stop.json", {"time": 0.0})]
    for age, (key, record) in zip((60, 30), writes if after else writes[::-1], strict=True):
        directory.write(key, record)
        then = time.time() - age
        os.utime(tmp_path / "first" / key, (then, then))
    assert drive(monkeypatch, told(tmp_path)) == (130 if after else 0)
    assert started == ["stopped"] if after else len(started) == 1
