"""The chart highwater against a real API server, in a namespace of its own that enforces the restricted standard.

Runs only where HIGHWATER_TEST_CONTEXT names the current context of kubectl. No pod ever starts: the image is not there.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.charts import helm

VALUES: list[dict[str, Any]] = [
    {},
    {
        "storage": "s3://bucket/x",
        "createCredentials": {"enabled": True, "accessKeyId": "a", "secretAccessKey": "b"},
        "rbac": {
            "users": [{"kind": "User", "name": "jane: x"}, {"kind": "ServiceAccount", "name": "bot"}],
            "helm": True,
        },
        "labels": {"team": "x"},
        "annotations": {"example.com/note": 'a: "b"\n'},
        "quota": {"enabled": True, "hard": {"requests.cpu": 8, "limits.memory": "64Gi"}},
        "limitRange": {"enabled": True, "max": {"memory": "8Gi"}},
        "priorityClasses": {"enabled": True, "classes": [{"name": "hw-test-low", "value": -5, "preempts": False}]},
        "sharedCluster": {"enabled": True},
    },
    {
        "storage": "s3://bucket/x",
        "workloadIdentity": {"enabled": True},
        "networkPolicy": {
            "storage": {"cidrs": ["128.0.0.0/1", "10.0.0.0/8", "fd00::/8"]},
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80, "endPort": 90}]}],
        },
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "sharedCluster": {
            "enabled": True,
            "autoscaler": {"enabled": False},
            "resources": {"cpusPerWorker": 0.2, "gpusPerWorker": 1},
        },
    },
]


def run(*command: str, text: str | None = None, ok: bool = True) -> str:
    """The output of a command; an AssertionError with what it said if it failed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 or not ok, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    wanted = os.environ.get("HIGHWATER_TEST_CONTEXT")
    if not wanted or shutil.which("kubectl") is None or shutil.which("helm") is None:
        pytest.skip("no cluster: set HIGHWATER_TEST_CONTEXT; the API server has NOT seen the chart highwater")
    if run("kubectl", "config", "current-context", ok=False).strip() != wanted:
        pytest.skip(f"no cluster: the current context is not HIGHWATER_TEST_CONTEXT={wanted}; nothing was sent to it")
    name = f"hw-chart-{secrets.token_hex(3)}"
    run("kubectl", "create", "namespace", name)
    try:
        run("kubectl", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        yield name
    finally:
        run("kubectl", "delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("values", VALUES, ids=["plain", "all", "identity"])
def test_the_server_takes_every_object(namespace: str, values: dict[str, Any]) -> None:
    rendered = helm.template("highwater", values=values, namespace=namespace)
    # A pod is refused until its account is there; the release below brings both.
    others = [body for body in rendered if body["kind"] != "Pod"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": others})
    said = run("kubectl", "create", "--dry-run=server", "--validate=strict", "-f", "-", text=text)
    assert said.count("(server dry run)") == len(others)
    pods = [body["spec"] for body in rendered if body["kind"] == "Pod"]
    for body in rendered:
        if body["kind"] == "RayCluster":
            pods += [
                group["template"]["spec"]
                for group in (body["spec"]["headGroupSpec"], *body["spec"]["workerGroupSpecs"])
            ]
    for number, spec in enumerate(pods):
        bare = {key: value for key, value in spec.items() if key not in ("serviceAccountName", "imagePullSecrets")}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"p{number}", "namespace": namespace},
            "spec": bare,
        }
        run("kubectl", "create", "--dry-run=server", "-f", "-", text=json.dumps(pod))


def test_a_release_keeps_its_token_and_leaves_nothing(namespace: str) -> None:
    def release(verb: str, *sets: str) -> None:
        words = [
            word for text in ("sharedCluster.enabled=true", "image.pullPolicy=Never", *sets) for word in ("--set", text)
        ]
        run("helm", verb, "highwater", str(helm.CHARTS / "highwater"), "--namespace", namespace, *words)

    def token() -> str:
        path = "jsonpath={.data.auth_token}"
        return run("kubectl", "--namespace", namespace, "get", "secret", "highwater-shared-token", "-o", path)

    release("install", "rbac.users[0].kind=User", "rbac.users[0].name=jane")
    first = token()
    release("upgrade", "retries=4", "rbac.users[0].kind=User", "rbac.users[0].name=jane")
    assert token() == first
    _rights(namespace)
    run("helm", "uninstall", "highwater", "--namespace", namespace, "--wait")
    kinds = "configmap,secret,serviceaccount,role,rolebinding,networkpolicy,poddisruptionbudget,raycluster"
    left = run("kubectl", "--namespace", namespace, "get", kinds, "-o", "name").split()
    # KubeRay removes what it made itself, the autoscaler's role among it, a moment later.
    mine = [name for name in left if "highwater" in name and not name.startswith(("role", "secret/sh.helm"))]
    assert mine == []


def _rights(namespace: str) -> None:
    """What jane may and may not, as the server sees it."""

    def may(verb: str, resource: str, *more: str) -> bool:
        words = ("kubectl", "auth", "can-i", verb, resource, "--as", "jane", *more)
        return run(*words, ok=False).strip() == "yes"

    here = ("--namespace", namespace)
    assert may("create", "rayjobs.ray.io", *here)
    assert may("patch", "rayjobs.ray.io", *here)
    assert may("create", "pods", "--subresource=exec", *here)
    assert may("get", "pods", "--subresource=log", *here)
    assert not may("get", "secrets", *here)
    assert not may("list", "secrets", *here)
    assert not may("create", "rayclusters.ray.io", *here)
    assert not may("create", "rolebindings.rbac.authorization.k8s.io", *here)
    assert not may("update", "networkpolicies.networking.k8s.io", *here)
    assert not may("create", "pods", "--subresource=attach", *here)
    assert not may("create", "serviceaccounts", "--subresource=token", *here)
    assert not may("list", "rayjobs.ray.io", "--all-namespaces")
    assert not may("get", "nodes")
