"""The same run by `helm install`, by `highwater run --cluster` and by `ray job submit`, and on this machine's Ray."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.storage import open_store
from jobs.rundir import RunDir
from tests.cluster.stage import SHARED, Place
from tests.cluster.tools import ROOT, SMALL, Cluster, highwater, run, wait_for

CHANGES = (*SMALL, "steps=30")


def losses(directory: RunDir) -> dict[int, float]:
    """Loss of every step."""
    return {row["step"]: row["loss"] for row in directory.rows("metrics") if "loss" in row}


def overrides() -> list[str]:
    return [word for change in CHANGES for word in ("--set", change)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The curve on a Ray of this machine, with the same threads and workers."""
    folder = tmp_path_factory.mktemp("local")
    highwater("run", "language", *overrides(), "--name", "local", "--storage", str(folder))
    curve = losses(RunDir(open_store(str(folder)), "local"))
    assert max(curve) == 30
    return curve


def same(found: dict[int, float], expected: dict[int, float]) -> None:
    """Bit for bit: the pods run on this machine's CPU, or on one that rounds alike; elsewhere 1e-4."""
    exact = os.environ["HIGHWATER_TEST_CONTEXT"] == "testbed"
    assert found == (expected if exact else pytest.approx(expected, rel=1e-4))


def test_helm_install(cluster: Cluster, place: Place, expected: dict[int, float]) -> None:
    values = ["--set", "recipe=language,resources.cpusPerWorker=0.2,resources.memoryGib=3"]
    # What decides the pods' shape is a value of the chart, and refused among the overrides.
    rest = [change for change in CHANGES if not change.startswith(("workers=", "resources."))]
    values += ["--set-json", f"set={json.dumps(rest)}"]
    cluster.helm("install", "by-helm", str(ROOT / "charts/training-job"), *values)
    wait_for("the run's end", lambda: cluster.job_status("by-helm") in ("SUCCEEDED", "FAILED", "STOPPED"), 240)
    assert cluster.job_status("by-helm") == "SUCCEEDED", cluster.kubectl("get", "rayjob", "by-helm", "-o", "yaml")
    same(losses(place.run_dir("by-helm")), expected)
    assert b"<html" in place.run_dir("by-helm").store.get("by-helm/report.html")
    cluster.helm("test", "by-helm")
    cluster.helm("uninstall", "by-helm", timeout_s=200)
    wait_for("nothing left", lambda: not cluster.get("rayjobs", selector="highwater.io/run=by-helm")["items"], 60)


def test_highwater_run(cluster: Cluster, place: Place, expected: dict[int, float]) -> None:
    words = ["run", "language", *overrides(), "--name", "by-command", "--cluster", "--namespace", cluster.namespace]
    done = highwater(*words)
    assert "trained to the last step" in done.stdout or "perplexity" in done.stdout
    same(losses(place.run_dir("by-command")), expected)
    assert place.run_dir("by-command").store.get("by-command/report.html")
    again = highwater(*words)
    assert "finished" in again.stdout
    status = highwater("status", "by-command", "--cluster", "--namespace", cluster.namespace)
    assert "finished" in status.stdout


@contextmanager
def forwarded(cluster: Cluster, service: str) -> Iterator[str]:
    """The dashboard of a head, on a port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["kubectl", "--namespace", cluster.namespace, "port-forward", f"service/{service}", f"{port}:8265"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            assert "Forwarding" in process.stdout.readline()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def token(cluster: Cluster) -> str:
    secret = cluster.get("secret", "highwater-shared-token")
    return base64.b64decode(secret["data"]["auth_token"]).decode()


def answer(url: str, **headers: str) -> int:
    """The status of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_ray_job_submit(cluster: Cluster, place: Place, expected: dict[int, float], shared: None) -> None:
    spec: list[str] = [*overrides(), "--set", f"storage={place.uri}", "--set", f"storage_endpoint={place.endpoint}"]
    with forwarded(cluster, f"{SHARED}-head-svc") as address:
        words = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", address]
        words += ["--entrypoint-num-cpus", "0.1", "--", "python", "-m", "trainers.run", "language", *spec]
        done = run(*words, "--name", "by-ray", timeout_s=240, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token(cluster))
    assert "succeeded" in done.stdout
    same(losses(place.run_dir("by-ray")), expected)


def test_without_the_token_only_health_answers(cluster: Cluster, shared: None) -> None:
    with forwarded(cluster, f"{SHARED}-head-svc") as address:
        known = {"Authorization": f"Bearer {token(cluster)}"}
        for path in ("/api/version", "/api/jobs/", "/nodes?view=summary", "/api/cluster_status", "/logs"):
            assert answer(address + path) == 401, path
            assert answer(address + path, Authorization="Bearer wrong") in (401, 403), path
        assert answer(address + "/api/version", **known) == 200
        assert answer(address + "/api/gcs_healthz") == 200


def test_secrets_are_nowhere(cluster: Cluster, place: Place) -> None:
    """Neither S3's keys nor Ray's tokens stand in a manifest, an event, a log or any object of a run."""
    secrets = [os.environ["AWS_SECRET_ACCESS_KEY"]]
    for secret in cluster.get("secrets")["items"]:
        held: dict[str, str] = secret.get("data", {})
        told = [value for key, value in held.items() if "token" in key or "SECRET" in key]
        secrets += [base64.b64decode(value).decode(errors="replace") for value in told]
    shown = cluster.kubectl("get", "all,configmaps,events,rayjobs,rayclusters,networkpolicies", "-o", "yaml")
    shown += cluster.helm("get", "manifest", "highwater").stdout
    store = place.run_dir("").store
    for entry in store.list(""):
        if not re.search(r"/(checkpoints|data)/", entry.key):
            shown += store.get(entry.key).decode(errors="replace")
    assert len(secrets) > 1
    for value in secrets:
        assert len(value) < 8 or value not in shown
