"""kubectl, helm and highwater as a person runs them, with every failure in the test's message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Object = dict[str, Any]

#: A model that two workers train on a fraction of a core each, with all that is random but the mathematics fixed.
SMALL = (
    "workers=2",
    "batch=8",
    "bptt=32",
    "learning_rate=0.01",
    "memory_limit_mib=null",
    "epochs=null",
    "resources.cpus_per_worker=0.2",
    "resources.memory_gib=3",
)


def run(*words: str, timeout_s: float = 120, ok: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of this machine; with `ok` it must succeed."""
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if ok and done.returncode:
        raise AssertionError(
            f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
    return done


def highwater_command(*words: str) -> list[str]:
    """The command of this checkout."""
    return [sys.executable, "-m", "jobs", *words]


def highwater(
    *words: str, timeout_s: float = 300, ok: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`highwater` with these words."""
    return run(*highwater_command(*words), timeout_s=timeout_s, ok=ok, **environment)


def wait_for(what: str, look: Callable[[], Any], timeout_s: float, every_s: float = 1.0) -> Any:
    """The first truthy answer; an AssertionError that says what did not come."""
    end = time.monotonic() + timeout_s
    while not (answer := look()):
        assert time.monotonic() < end, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(every_s)
    return answer


class Cluster:
    """One namespace, as kubectl and helm see it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def kubectl(self, *words: str, timeout_s: float = 60, ok: bool = True) -> str:
        """What kubectl prints."""
        return run("kubectl", "--namespace", self.namespace, *words, timeout_s=timeout_s, ok=ok).stdout

    def get(self, kind: str, name: str = "", selector: str = "") -> Object:
        """An object, or a list of them."""
        words = ["get", kind, *([name] if name else []), *(["--selector", selector] if selector else [])]
        return json.loads(self.kubectl(*words, "--output", "json"))

    def pods(self, run_name: str, component: str) -> list[str]:
        """Names of a run's pods."""
        selector = f"highwater.io/run={run_name},app.kubernetes.io/component={component}"
        return [pod["metadata"]["name"] for pod in self.get("pods", selector=selector)["items"]]

    def job_status(self, name: str) -> str:
        """The Ray job's status by KubeRay; empty before there is one."""
        return str(self.get("rayjob", name).get("status", {}).get("jobStatus", ""))

    def helm(self, *words: str, timeout_s: float = 120, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """helm in this namespace."""
        return run("helm", "--namespace", self.namespace, *words, timeout_s=timeout_s, ok=ok)

    def driver_pod(self, run_name: str) -> str:
        """The worker pod in which the run's driver lives."""
        look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q '[t]rainers.rayjob'"
        for pod in self.pods(run_name, "worker"):
            words = ["kubectl", "--namespace", self.namespace, "exec", pod, "--container", "ray-worker"]
            if run(*words, "--", "sh", "-c", look, ok=False).returncode == 0:
                return pod
        raise AssertionError(f"no pod of {run_name} has a driver")
