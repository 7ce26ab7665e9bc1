"""Each object of the chart highwater: there when asked for, with no more rights than it says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.charts import helm

Object = dict[str, Any]
EVERYTHING: Object = {
    "image": {"registry": "reg:5000"},
    "imagePullSecrets": ["pull"],
    "storage": "s3://bucket/x",
    "createCredentials": {"enabled": True, "accessKeyId": "a", "secretAccessKey": "b"},
    "rbac": {"users": [{"kind": "User", "name": "jane"}], "helm": True},
    "labels": {"team": "x", "app.kubernetes.io/name": "other", "app.kubernetes.io/component": "other"},
    "annotations": {"note": "y"},
    "priorityClasses": {"enabled": True},
    "queue": {"enabled": True},
    "quota": {"enabled": True, "hard": {"requests.cpu": 8}},
    "limitRange": {"enabled": True},
    "sharedCluster": {"enabled": True},
}
CLUSTER_SCOPED = {"PriorityClass", "ClusterQueue", "ResourceFlavor"}


@pytest.fixture(scope="module")
def plain() -> list[Object]:
    return helm.template("highwater")


@pytest.fixture(scope="module")
def everything() -> list[Object]:
    return helm.template("highwater", values=EVERYTHING, api_versions=helm.KUBERAY + helm.KUEUE)


def pods(rendered: list[Object]) -> Iterator[Object]:
    """All pod specs of a rendering."""
    for body in rendered:
        if body["kind"] == "Pod":
            yield body["spec"]
        if body["kind"] == "RayCluster":
            for group in (body["spec"]["headGroupSpec"], *body["spec"]["workerGroupSpecs"]):
                yield group["template"]["spec"]


def rules(rendered: list[Object], role: str) -> dict[str, set[str]]:
    """What a role may do, by resource."""
    found: dict[str, set[str]] = {}
    for rule in helm.one(rendered, "Role", role)["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault(f"{resource}.{group}".rstrip("."), set()).update(rule["verbs"])
    return found


def test_a_plain_install_has_these_objects(plain: list[Object]) -> None:
    assert sorted((body["kind"], body["metadata"]["name"]) for body in plain) == [
        ("ConfigMap", "highwater-platform"),
        ("NetworkPolicy", "highwater-deny"),
        ("NetworkPolicy", "highwater-egress"),
        ("NetworkPolicy", "highwater-operator"),
        ("NetworkPolicy", "highwater-ray"),
        ("NetworkPolicy", "highwater-submit"),
        ("Pod", "highwater-test"),
        ("Role", "highwater-submit"),
        ("Role", "highwater-user"),
        ("RoleBinding", "highwater-submit"),
        ("ServiceAccount", "highwater-run"),
        ("ServiceAccount", "highwater-submit"),
    ]


def test_nothing_belongs_to_the_whole_cluster_unless_asked_for(plain: list[Object], everything: list[Object]) -> None:
    assert all(body["metadata"]["namespace"] == "runs" for body in plain)
    assert {body["kind"] for body in everything if "namespace" not in body["metadata"]} == CLUSTER_SCOPED


def test_names_are_unique(everything: list[Object]) -> None:
    names = [(body["kind"], body["metadata"]["name"]) for body in everything]
    assert len(set(names)) == len(names)


def test_all_objects_carry_the_labels_of_values_and_their_own(everything: list[Object]) -> None:
    for body in everything:
        labels = body["metadata"]["labels"]
        assert labels["team"] == "x"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/name"] in ("highwater-platform", "highwater")
        assert body["kind"] == "Pod" or body["metadata"]["annotations"]["note"] == "y"


def test_labels_of_values_never_hide_a_pod_from_its_policies(everything: list[Object]) -> None:
    spec = helm.one(everything, "RayCluster")["spec"]
    for group, component in ((spec["headGroupSpec"], "head"), (spec["workerGroupSpecs"][0], "worker")):
        labels = group["template"]["metadata"]["labels"]
        assert (labels["app.kubernetes.io/name"], labels["app.kubernetes.io/component"]) == ("highwater", component)


def test_one_registry_for_all_images(everything: list[Object]) -> None:
    images = set(re.findall(r'"image": "([^"]*)"', json.dumps(everything)))
    assert images == {"reg:5000/highwater/worker:0.1.0", "reg:5000/highwater/submit:0.1.0"}
    assert all(pod["imagePullSecrets"] == [{"name": "pull"}] for pod in pods(everything))


def test_all_pods_are_restricted_and_limited(everything: list[Object]) -> None:
    found = list(pods(everything))
    assert len(found) == 3
    for pod in found:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        containers = pod["containers"] + pod.get("initContainers", [])
        if any(container["name"] == "ray-head" for container in containers):
            containers.append(helm.one(everything, "RayCluster")["spec"]["autoscalerOptions"])
        for container in containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert set(container["resources"]["requests"]) >= {"cpu", "memory"}
            assert set(container["resources"]["limits"]) == {"memory"}
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts <= {volume["name"] for volume in pod["volumes"]}


def test_accounts_mount_no_token(everything: list[Object]) -> None:
    accounts = [body for body in everything if body["kind"] == "ServiceAccount"]
    assert len(accounts) == 3
    assert all(body["automountServiceAccountToken"] is False for body in accounts)


def test_the_account_of_runs_has_no_rights(everything: list[Object]) -> None:
    bound = [s["name"] for body in everything if body["kind"] == "RoleBinding" for s in body["subjects"]]
    assert sorted(bound) == ["highwater-submit", "jane"]


def test_the_account_of_runs_by_values() -> None:
    sets = (
        "serviceAccount.name=mine",
        "serviceAccount.annotations.eks\\.amazonaws\\.com/role-arn=arn:aws:iam::1:role/x",
    )
    account = helm.one(helm.template("highwater", *sets), "ServiceAccount", "mine")
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}
    kept = helm.template("highwater", "serviceAccount.create=false", "serviceAccount.name=mine")
    assert [body["metadata"]["name"] for body in kept if body["kind"] == "ServiceAccount"] == ["highwater-submit"]


RUNS = {
    "rayjobs.ray.io": {"get", "list", "create", "patch", "delete"},
    "rayclusters.ray.io": {"get", "list"},
    "pods": {"get", "list"},
    "pods/log": {"get"},
    "pods/exec": {"create", "get"},
    "configmaps": {"get", "create", "delete"},
    "poddisruptionbudgets.policy": {"get", "create", "delete"},
    "events": {"list"},
}
PEOPLE = RUNS | {
    "pods": {"get", "list", "create", "delete"},
    "services": {"get", "list"},
    "pods/portforward": {"create", "get"},
    "jobs.batch": {"get", "list"},
    "cronjobs.batch": {"get", "list"},
}


def test_rights_are_these_and_no_others(plain: list[Object]) -> None:
    assert rules(plain, "highwater-submit") == RUNS
    assert rules(plain, "highwater-user") == PEOPLE


def test_with_helm_there_are_more_but_never_secrets_or_wildcards(everything: list[Object]) -> None:
    assert rules(everything, "highwater-submit") == RUNS
    more = rules(everything, "highwater-user")
    assert all(verbs <= more[resource] for resource, verbs in PEOPLE.items())
    assert set(more) == set(PEOPLE)
    assert more["configmaps"] >= {"list", "update"}
    for role in (body for body in everything if body["kind"] == "Role"):
        text = json.dumps(role["rules"])
        assert "secrets" not in text
        assert "*" not in text


def test_users_are_bound() -> None:
    values = {"rbac": {"users": [
        {"kind": "User", "name": "jane: x", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "Group", "name": "team:a"},
        {"kind": "ServiceAccount", "name": "bot"},
        {"kind": "ServiceAccount", "name": "bot", "namespace": "ci"},
    ]}}  # fmt: skip
    binding = helm.one(helm.template("highwater", values=values), "RoleBinding", "highwater-user")
    assert binding["roleRef"]["name"] == "highwater-user"
    group = "rbac.authorization.k8s.io"
    assert binding["subjects"] == [
        {"apiGroup": group, "kind": "User", "name": "jane: x"},
        {"apiGroup": group, "kind": "Group", "name": "team:a"},
        {"kind": "ServiceAccount", "name": "bot", "namespace": "runs"},
        {"kind": "ServiceAccount", "name": "bot", "namespace": "ci"},
    ]


def test_without_rbac_there_are_no_rights_and_no_test() -> None:
    kinds = {body["kind"] for body in helm.template("highwater", "rbac.create=false")}
    assert not kinds & {"Role", "RoleBinding", "Pod"}


def test_credentials_from_values() -> None:
    values = {
        "createCredentials": {
            "enabled": True,
            "accessKeyId": "AKIA",
            "secretAccessKey": "a/b+c='$(x)\"",
            "region": "r-1",
        }
    }
    secret = helm.one(helm.template("highwater", values=values), "Secret", "highwater-storage")
    assert {key: base64.b64decode(value).decode() for key, value in secret["data"].items()} == {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "a/b+c='$(x)\"",
        "AWS_REGION": "r-1",
    }


def test_the_queue(everything: list[Object]) -> None:
    local = helm.one(everything, "LocalQueue")
    cluster = helm.one(everything, "ClusterQueue")
    flavor = helm.one(everything, "ResourceFlavor")
    assert {body["apiVersion"] for body in (local, cluster, flavor)} == {"kueue.x-k8s.io/v1beta2"}
    assert local["metadata"]["name"] == "highwater"
    assert local["spec"] == {"clusterQueue": cluster["metadata"]["name"]}
    assert cluster["metadata"]["name"] == "highwater-runs"
    assert cluster["spec"]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "runs"}}
    (group,) = cluster["spec"]["resourceGroups"]
    assert group["coveredResources"] == ["cpu", "memory"]
    assert group["flavors"][0]["name"] == flavor["metadata"]["name"]
    assert [r["name"] for r in group["flavors"][0]["resources"]] == group["coveredResources"]
    assert flavor["spec"] == {}


def test_the_queue_by_values() -> None:
    quota = {"cpus": 0.5, "memoryGib": 1.5, "gpus": 4, "nodeLabels": {"a": "b"}, "cohort": "all", "preemption": "Never"}
    values = {"queue": {"enabled": True, "name": "q", **quota}}
    rendered = helm.template("highwater", values=values, api_versions=helm.KUBERAY + helm.KUEUE)
    spec = helm.one(rendered, "ClusterQueue")["spec"]
    assert (spec["cohortName"], spec["preemption"]) == ("all", {"withinClusterQueue": "Never"})
    assert spec["resourceGroups"][0]["flavors"][0]["resources"] == [
        {"name": "cpu", "nominalQuota": "500m"},
        {"name": "memory", "nominalQuota": "1536Mi"},
        {"name": "nvidia.com/gpu", "nominalQuota": "4"},
    ]
    assert helm.one(rendered, "ResourceFlavor")["spec"] == {"nodeLabels": {"a": "b"}}
    assert helm.one(rendered, "LocalQueue")["metadata"]["name"] == "q"


def test_a_cluster_queue_that_is_there_already() -> None:
    rendered = helm.template(
        "highwater", "queue.enabled=true", "queue.clusterQueue=shared", api_versions=helm.KUBERAY + helm.KUEUE
    )
    assert helm.one(rendered, "LocalQueue")["spec"] == {"clusterQueue": "shared"}
    assert not {body["kind"] for body in rendered} & {"ClusterQueue", "ResourceFlavor"}


def test_priority_classes(everything: list[Object]) -> None:
    classes = {body["metadata"]["name"]: body for body in everything if body["kind"] == "PriorityClass"}
    assert {name: body["value"] for name, body in classes.items()} == {
        "highwater-low": -100,
        "highwater-normal": 1000,
        "highwater-high": 10000,
    }
    assert not any(body["globalDefault"] for body in classes.values())
    assert classes["highwater-low"]["preemptionPolicy"] == "Never"
    assert classes["highwater-high"]["preemptionPolicy"] == "PreemptLowerPriority"
    values = {"priorityClasses": {"enabled": True, "classes": [{"name": "a", "value": 1000000000, "preempts": True}]}}
    assert helm.one(helm.template("highwater", values=values), "PriorityClass")["value"] == 1000000000


def test_quota_and_limits(everything: list[Object]) -> None:
    assert helm.one(everything, "ResourceQuota")["spec"] == {"hard": {"requests.cpu": 8}}
    (limit,) = helm.one(everything, "LimitRange")["spec"]["limits"]
    assert limit == {
        "type": "Container",
        "defaultRequest": {"cpu": "100m", "memory": "256Mi"},
        "default": {"memory": "1Gi"},
    }
    rendered = helm.template("highwater", values={"limitRange": {"enabled": True, "max": {"memory": "8Gi"}}})
    assert helm.one(rendered, "LimitRange")["spec"]["limits"][0]["max"] == {"memory": "8Gi"}


def test_helm_test_asks_for_rights_and_storage() -> None:
    values = {"storage": "s3://bucket/x; rm", "storageEndpoint": "http://minio:9000", "credentialsSecret": "s3"}
    pod = helm.one(helm.template("highwater", values=values), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["serviceAccountName"] == "highwater-submit"
    (storage,) = pod["spec"]["initContainers"]
    assert storage["command"] == [
        "highwater", "doctor", "--storage", "s3://bucket/x; rm", "--endpoint", "http://minio:9000",
    ]  # fmt: skip
    assert storage["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert pod["spec"]["containers"][0]["command"] == ["highwater", "status", "--cluster"]
    bare = helm.one(helm.template("highwater"), "Pod")
    assert "initContainers" not in bare["spec"]
