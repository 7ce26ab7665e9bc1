"""Asking a run to leave, and waiting until it has."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from jobs import cli
from jobs.attach import is_driven
from jobs.cancel import ask, wait_left
from jobs.errors import HighwaterError, Reason
from jobs.rundir import STOP
from tests.unit.fakerun import FakeRun


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    made = FakeRun(tmp_path)
    made.dir.write("spec.json", {})
    return made


def test_only_a_run_that_lives_is_asked(run: FakeRun) -> None:
    assert ask(run.dir) == "run demo does not run: no driver is at it"
    run.lease(beat_at=time.time() - 1000)
    run.result(Reason.OUT_OF_MEMORY)
    assert ask(run.dir) == "run demo does not run: it ended: out_of_memory"
    assert run.dir.read(STOP) is None
    run.lease(beat_at=time.time())
    assert ask(run.dir) == "asked run demo to save and leave"
    assert run.dir.read(STOP) is not None
    assert is_driven(run.dir)
    run.lease(beat_at=time.time(), released=True)
    assert not is_driven(run.dir)


def test_waiting_has_an_end() -> None:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    wait_left("demo", lambda: now[0] >= 5, 10, clock=lambda: now[0], pause=pause)
    assert now[0] == 5
    with pytest.raises(HighwaterError, match="has not left after 10 s") as raised:
        wait_left("demo", lambda: False, 10, clock=lambda: now[0], pause=pause)
    assert raised.value.reason is Reason.INTERNAL and now[0] == 15


def test_the_verb(run: FakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cancel", "demo", "--storage", str(tmp_path), "--wait", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "demo", "message": "run demo has left"}
    assert cli.main(["cancel", "demo", "--storage", str(tmp_path), "--force"]) == 2
    assert "--force is about a run on Kubernetes; add --cluster" in capsys.readouterr().err
