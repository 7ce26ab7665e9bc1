"""The package in `tests/outside`, trained from a folder of its own by real processes, Ray's among them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.led import run_of
from tests.unit.own import OUTSIDE, spirals
from tests.unit.tiny import curve

from .test_runs import BIN, ENVIRONMENT, ROOT, Cluster, cluster  # noqa: F401 - a fixture

#: Ray makes a virtual environment for one of them; all take minutes where a machine does other things, too.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder elsewhere that holds the package and its spec, as a person's own does."""
    (tmp_path / "spirals").mkdir()
    for name in ("spirals/__init__.py", "spirals/task.py", "spirals.yaml"):
        (tmp_path / name).write_bytes((OUTSIDE / name).read_bytes())
    return tmp_path


def start(home: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    """`trainers.run` beside the package, which is found because of that: nothing but Highwater is on the path."""
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT), "KINETO_USDT": "0"}
    command = [sys.executable, "-P", "-m", "trainers.run", "spirals.yaml", "--name", name, "--quiet", *words]
    return subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    error = process.communicate(timeout=550)[1]
    assert process.returncode == 0, error.decode()


def changed(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def test_it_is_fitted_killed_and_resumed_from_its_own_folder(home: Path) -> None:
    changes = ["data.options.rows=2000", "fit.probes=2", "fit.batch_max=32", "checkpointing.every_steps=50"]
    fitted, run = run_of(spirals(home), "fitted"), run_of(spirals(home), "killed")
    end(start(home, "fitted", "--ray", "none", *changed(*changes)))
    facts = fitted.result()
    assert facts is not None
    words = ["--ray", "none", *changed(*changes, f"batch={facts.batch}")]
    killed = start(home, "killed", *words)
    while killed.poll() is None and not any(row["step"] >= 200 for row in run.rows("metrics")):
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    end(start(home, "killed", *words))
    assert len(run.numbers("attempts/")) == 2
    assert curve(run) == curve(fitted)
    result = run.result()
    assert result is not None
    assert result.best_metrics["accuracy"] > 0.9
    assert math.isfinite(result.baseline["loss"])
    assert b"accuracy" in run.store.get(run.key("report.html"))


@pytest.mark.ray
def test_rays_workers_find_it_too(home: Path) -> None:
    steps = changed("batch=16", "steps=60", "model.options.dropout=0.0", "memory_limit_mib=null")
    two = start(home, "two", *steps, *changed("workers=2", "batch=8"))
    end(start(home, "one", "--ray", "none", *steps))
    end(two)
    left, right = (curve(run_of(spirals(home), name)) for name in ("one", "two"))
    assert len(left) == len(right) >= 60
    losses = [[row[2] for row in rows if row[0] == "step"] for rows in (left, right)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5, abs=1e-5)


@pytest.mark.ray
def test_it_travels_to_a_cluster_with_what_it_requires(home: Path, cluster: Cluster) -> None:  # noqa: F811
    # A requirement that the cluster's Python meets already: nothing is fetched.
    words = changed("batch=16", "steps=30", "memory_limit_mib=null", "runtime.requirements=[packaging>=20]")
    command = [str(BIN / "highwater"), "run", "spirals.yaml", "--name", "sent", *words]
    command += ["--ray", cluster.dashboard, "--json"]
    done = subprocess.run(command, cwd=home, env=ENVIRONMENT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["step"] == 30
