"""From a command to the first training step on Kubernetes, against a hand-written minimal RayJob on the same cluster.

`python -m tests.bench.cluster_start [--pairs 5]` needs what tests/cluster needs (HIGHWATER_TEST_CONTEXT,
HIGHWATER_TEST_IMAGE). The minimal RayJob has the same image, workers, CPUs and memory, no authentication, no probes
beyond KubeRay's, no budgets, and takes one step of a tiny model. Printed: seconds of both, and the median of the
ratios pair by pair; the goal is 1.5.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import time
from typing import Any

from tests.bench.common import exit_code
from tests.cluster.stage import IMAGE, Place, installed, own_place, why_not
from tests.cluster.tools import SMALL, Cluster, highwater, wait_for

GOAL = 1.5
SCRIPT = """
import time
import ray.train
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

def loop():
    model = prepare_model(torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(4, 8)).square().mean().backward()
    optimizer.step()
    print("FIRST", time.time(), flush=True)

TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1})).fit()
"""


def minimal(name: str, image: str) -> list[dict[str, Any]]:
    """What somebody writes by hand: a RayJob and the script that it runs."""

    def pod(kind: str, cpu: str, memory: str) -> dict[str, Any]:
        path, port = ("gcs_healthz", 8265) if kind == "head" else ("local_raylet_healthz", 52365)
        probe = {"httpGet": {"path": f"/api/{path}", "port": port}, "periodSeconds": 2, "failureThreshold": 60}
        container = {
            "name": f"ray-{kind}",
            "image": image,
            "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}},
            "env": [{"name": "RAY_AUTH_MODE", "value": "disabled"}, {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}],
            "volumeMounts": [{"name": "script", "mountPath": "/script"}],
            "readinessProbe": probe,
            "livenessProbe": probe,
        }
        return {"spec": {"containers": [container], "volumes": [{"name": "script", "configMap": {"name": name}}]}}

    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": "python /script/train.py",
            "submissionMode": "HTTPMode",
            "rayClusterSpec": {
                "rayVersion": "2.60.0",
                "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": pod("head", "200m", "2Gi")},
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": 2,
                        "minReplicas": 2,
                        "maxReplicas": 2,
                        "rayStartParams": {"num-cpus": "1"},
                        "template": pod("worker", "300m", "3Gi"),
                    }
                ],
            },
        },
    }
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"train.py": SCRIPT}}
    return [config, job]


def by_hand(cluster: Cluster) -> float:
    """Seconds from `kubectl create` to the first step of the slower rank."""
    name = f"by-hand-{secrets.token_hex(3)}"
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": minimal(name, os.environ[IMAGE])})
    began = time.time()
    words = ["kubectl", "--namespace", cluster.namespace, "create", "--filename", "-"]
    subprocess.run(words, input=body, text=True, check=True, capture_output=True)
    wait_for("the minimal RayJob", lambda: cluster.job_status(name) == "SUCCEEDED", 240)
    (head,) = [
        pod["metadata"]["name"]
        for pod in cluster.get("pods", selector="ray.io/node-type=head")["items"]
        if pod["metadata"]["name"].startswith(name)
    ]
    log = cluster.kubectl("exec", head, "--", "sh", "-c", "cat /tmp/ray/session_latest/logs/job-driver-*.log")
    gone(cluster, name)
    return max(float(said) for said in re.findall(r"FIRST ([\d.]+)", log)) - began


def ours(cluster: Cluster, place: Place) -> float:
    """Seconds from `highwater run --cluster` to the end of its first step."""
    name = f"ours-{secrets.token_hex(3)}"
    changes = [word for change in (*SMALL, "steps=2") for word in ("--set", change)]
    began = time.time()
    highwater("run", "language", *changes, "--name", name, "--cluster", "--namespace", cluster.namespace)
    first: float = place.run_dir(name).rows("metrics")[0]["time"]
    gone(cluster, name)
    return first - began


def gone(cluster: Cluster, name: str) -> None:
    """Wait until a run's pods have left the machine to the next one."""
    cluster.kubectl("delete", "rayjob", name)
    wait_for("no pods", lambda: not cluster.get("pods")["items"], 90)


def main() -> int:
    """Print a line for each pair, and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    if reason := why_not():
        print(reason)
        return 2
    ratios = []
    place = own_place()
    with installed(place) as cluster:
        # The minimal RayJob does not meet the restricted standard.
        cluster.kubectl("label", "namespace", cluster.namespace, "pod-security.kubernetes.io/enforce-")
        for pair in range(pairs):
            order = [by_hand, lambda c: ours(c, place)]
            # In turn first and second: the machine's speed drifts.
            times = [order[i](cluster) for i in ((0, 1) if pair % 2 == 0 else (1, 0))]
            hand, own = times if pair % 2 == 0 else times[::-1]
            ratios.append(own / hand)
            print(f"pair {pair + 1}: by hand {hand:.1f} s, highwater {own:.1f} s, ratio {own / hand:.2f}", flush=True)
    median = statistics.median(ratios)
    print(f"median ratio {median:.2f} of {pairs} pairs ({min(ratios):.2f} to {max(ratios):.2f}); goal {GOAL}")
    return exit_code(median <= GOAL)


if __name__ == "__main__":
    sys.exit(main())
