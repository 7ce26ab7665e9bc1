"""The chart `training-job` on a real API server: admission, upgrades, removal. No pod has to run for it.

The runs go to a queue that nobody serves: KubeRay keeps such a RayJob suspended, without pods.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.charts.helm import CHARTS, Object
from tests.charts.test_hostile import kubectl, own_namespace
from tests.charts.test_training_job import pods

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PLATFORM = {"image": "registry/worker:1", "storage": "s3://bucket/runs", "queue": "nobody", "drainSeconds": 7}


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    with own_namespace("release", **RESTRICTED) as name:
        configure(name, PLATFORM)
        yield name


@pytest.fixture(scope="module")
def release(namespace: str) -> Iterator[str]:
    said, code = helm("install", "sotu", namespace, "--set", "recipe=language", "--set", "set={batch=8}")
    assert code == 0, said
    yield "sotu"
    said, code = helm("uninstall", "sotu", namespace, "--no-hooks")
    assert code == 0, said


def configure(namespace: str, platform: dict[str, Any]) -> None:
    """What the chart highwater leaves in a namespace."""
    metadata = {"name": "highwater-platform", "namespace": namespace}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    body["data"] = {"platform.json": json.dumps(platform)}
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", text=json.dumps(body))


def helm(verb: str, release: str, namespace: str, *arguments: str) -> tuple[str, int]:
    chart = [] if verb == "uninstall" else [str(CHARTS / "training-job")]
    words = ["helm", verb, release, *chart, "--namespace", namespace, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr, done.returncode


def run(namespace: str, name: str = "sotu") -> Object:
    body: Object = json.loads(kubectl("get", "rayjob", name, "--namespace", namespace, "--output=json"))
    return body


def test_settings_come_from_the_config_map(namespace: str, release: str) -> None:
    job = run(namespace)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "nobody"
    worker = pods([job])[1]["spec"]
    assert worker["containers"][0]["image"] == "registry/worker:1"
    assert worker["terminationGracePeriodSeconds"] == 17


def test_an_upgrade_with_equal_values_changes_nothing(namespace: str, release: str) -> None:
    before = run(namespace)
    said, code = helm("upgrade", release, namespace, "--set", "recipe=language", "--set", "set={batch=8}")
    assert code == 0, said
    after = run(namespace)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


@pytest.mark.parametrize(
    "change",
    [
        ["set={batch=16}"],
        ["workers=3"],
        ["resources.memoryGib=5"],
        ["resources.cpusPerWorker=0.5"],
        ["image=registry/worker:2"],
        ["recipe=tabular"],
        ["until=fit"],
        ["storage=s3://elsewhere/runs"],
        ["submission=another"],
    ],
    ids=lambda change: change[0],
)
def test_an_upgrade_that_would_change_the_run_is_refused(namespace: str, release: str, change: list[str]) -> None:
    before = run(namespace)
    said, code = helm("upgrade", release, namespace, "--reuse-values", "--set", change[0])
    assert code != 0
    assert "sotu: a run cannot be changed while it exists; install it under another name, or uninstall it first" in said
    assert run(namespace)["spec"] == before["spec"]


def test_a_new_image_of_the_platform_does_not_reach_a_run(namespace: str, release: str) -> None:
    configure(namespace, PLATFORM | {"image": "registry/worker:2"})
    try:
        said, code = helm("upgrade", release, namespace, "--reuse-values")
    finally:
        configure(namespace, PLATFORM)
    assert code != 0
    assert "a run cannot be changed while it exists" in said


def test_a_schedule_does_not_take_a_run_s_place(namespace: str, release: str) -> None:
    said, code = helm("upgrade", release, namespace, "--reuse-values", "--set", "schedule=@daily")
    assert code != 0
    assert "a schedule would remove the run sotu, which exists" in said


def test_a_config_map_that_cannot_be_read_is_named(namespace: str) -> None:
    metadata = {"name": "highwater-platform", "namespace": namespace}
    kubectl("patch", "configmap", metadata["name"], "-n", namespace, "-p", json.dumps({"data": {"platform.json": "{"}}))
    try:
        said, code = helm("install", "other", namespace, "--set", "recipe=language", "--dry-run=server")
    finally:
        configure(namespace, PLATFORM)
    assert code != 0
    assert f"ConfigMap highwater-platform of namespace {namespace} has no platform.json that can be read" in said


def test_all_pods_are_admitted_where_the_restricted_standard_is_enforced(namespace: str) -> None:
    sets = [["recipe=language", "queue=q", "priority=system-cluster-critical"], ["recipe=language", "schedule=@daily"]]
    for given in sets:
        arguments = [word for text in given for word in ("--set", text)]
        rendered, code = helm("template", "other", namespace, *arguments, "--set", "image=r/w:1,storage=s3://bucket/a")
        assert code == 0, rendered
        for number, pod in enumerate(pods([body for body in yaml.safe_load_all(rendered) if body])):
            spec = {
                key: value
                for key, value in pod["spec"].items()
                if key not in ("serviceAccountName", "priorityClassName")
            }
            spec.setdefault("restartPolicy", "Never")
            # The account is not there; what is asked is whether such a pod may be.
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": spec}
            kubectl("create", "--dry-run=server", "--namespace", namespace, "--filename=-", text=json.dumps(body))


def test_a_schedule_is_made_and_removed(namespace: str) -> None:
    said, code = helm("install", "nightly", namespace, "--set", "recipe=language", "--set", "schedule=0 0 31 2 *")
    assert code == 0, said
    assert kubectl("get", "cronjob", "nightly", "-n", namespace, "-o", "jsonpath={.spec.schedule}") == "0 0 31 2 *"
    said, code = helm("upgrade", "nightly", namespace, "--reuse-values", "--set", "set={batch=16}")
    assert code == 0, said
    said, code = helm("uninstall", "nightly", namespace)
    assert code == 0, said
    assert kubectl("get", "cronjob", "-n", namespace, "-o", "name") == ""


def test_uninstall_leaves_nothing(namespace: str) -> None:
    said, code = helm("install", "short", namespace, "--set", "recipe=language,saveOnUninstall=false")
    assert code == 0, said
    said, code = helm("uninstall", "short", namespace)
    assert code == 0, said
    left = ""
    for _ in range(30):
        kinds = "rayjobs,poddisruptionbudgets,jobs,pods,cronjobs"
        left = kubectl("get", kinds, "-n", namespace, "-o", "name", "-l", "highwater.io/run=short")
        if not left:
            break
        time.sleep(1)
    assert not left
