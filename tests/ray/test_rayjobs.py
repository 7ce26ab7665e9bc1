"""The Jobs client against a real Ray head: what the test server of the unit tests imitates."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.rayjobs import Job, RayJobs, RayNotFoundError, RayUnreachableError

pytestmark = pytest.mark.ray


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def jobs() -> Iterator[RayJobs]:
    """A head with ports and a folder of its own; Ray's socket paths want the folder's name short."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="hw-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=1"]
        command += [f"--port={free_port()}", f"--dashboard-port={port}", f"--temp-dir={folder}"]
        command += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
        command += ["--object-store-memory=100000000", "--disable-usage-stats"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        with open(Path(folder, "head.log"), "wb") as log:
            head = subprocess.Popen(
                command,
                env=environment | {"RAY_AUTH_MODE": "disabled"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        client = RayJobs(f"http://127.0.0.1:{port}")
        try:
            wait_for_head(client, head, Path(folder, "head.log"))
            yield client
        finally:
            stop(head)


def wait_for_head(client: RayJobs, head: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 90
    while not answers(client):
        if head.poll() is not None or time.monotonic() > end:
            pytest.fail(f"the Ray head did not start: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def answers(client: RayJobs) -> bool:
    try:
        client.version()
    except RayUnreachableError:
        return False
    return True


def stop(head: subprocess.Popen[bytes]) -> None:
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def finished(jobs: RayJobs, name: str) -> Job:
    end = time.monotonic() + 60
    while not (job := jobs.job(name)).ended and time.monotonic() < end:
        time.sleep(0.2)
    return job


def test_a_package_is_run_with_its_variables_and_its_exit_code_comes_back(jobs: RayJobs) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("pack/__init__.py", "")
        archive.writestr("pack/go.py", "import os, sys\nprint('hello', os.environ['GREETED'])\nsys.exit(7)\n")
    uri = jobs.upload(data.getvalue())
    assert jobs.upload(data.getvalue()) == uri
    env = {"working_dir": uri, "env_vars": {"GREETED": "world", "RAY_AUTH_MODE": jobs.auth_mode()}}
    assert jobs.auth_mode() == "disabled"
    with pytest.raises(RayNotFoundError):
        jobs.job("hw-1")
    assert jobs.submit("python -m pack.go", "hw-1", runtime_env=env, metadata={"highwater": "x"})
    assert not jobs.submit("python -m pack.go", "hw-1", runtime_env=env)
    job = finished(jobs, "hw-1")
    assert (job.status, job.exit_code) == ("FAILED", 7)
    assert "hello world" in jobs.logs("hw-1")


def test_a_running_job_can_be_stopped(jobs: RayJobs) -> None:
    jobs.submit("sleep 100", "hw-2", runtime_env={})
    end = time.monotonic() + 30
    while jobs.job("hw-2").status == "PENDING" and time.monotonic() < end:
        time.sleep(0.1)
    jobs.stop("hw-2")
    assert finished(jobs, "hw-2").status == "STOPPED"
    assert jobs.job("hw-2").exit_code is None
