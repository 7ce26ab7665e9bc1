"""Values that are refused, each with a sentence that says what is wrong and what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.charts import helm

#: (values for --set, words of the sentence): what only the templates can tell.
SENTENCES: list[tuple[list[str], list[str]]] = [
    (["storageEndpoint=http://minio:9000"], ["storageEndpoint is given but storage is not", "--set storage=s3://"]),
    (["clientEndpoint=http://minio:9000"], ["clientEndpoint is given but storage is not"]),
    (["storage=s3://bucket/a/../b"], ["storage is s3://bucket/a/../b", "no `..`"]),
    (["createCredentials.enabled=true"], ["keys are missing", "createCredentials.accessKeyId", "credentialsSecret"]),
    (["createCredentials.enabled=true", "createCredentials.accessKeyId=a"], ["keys are missing"]),
    (["workloadIdentity.enabled=true", "credentialsSecret=s3"], ["there are keys as well", "leave out"]),
    (["environment.AWS_SECRET_ACCESS_KEY=x"], ["environment holds AWS_SECRET_ACCESS_KEY", "credentialsSecret"]),
    (["environment.RAY_AUTH_TOKEN=x"], ["environment holds RAY_AUTH_TOKEN"]),
    (["networkPolicy.storage.cidrs={169.254.169.254/32}"], ["networkPolicy.storage.cidrs has 169.254.169.254/32"]),
    (["networkPolicy.apiServer.cidrs={fd00:ec2::254/128}"], ["networkPolicy.apiServer.cidrs has fd00:ec2::254/128"]),
    (["quota.enabled=true"], ["quota.hard is empty", "--set-string"]),
    (["quota.enabled=true", "quota.hard.limits\\.cpu=4"], ["quota.hard has limits.cpu", "use requests.cpu"]),
    (["sharedCluster.enabled=true", "sharedCluster.workers.min=3"], ["min is 3 and max is 2"]),
    (["sharedCluster.enabled=true", "sharedCluster.token.secret=a", "sharedCluster.token.value=0123456789abcdef"],
     ["both secret and value"]),
    (["sharedCluster.enabled=true", "sharedCluster.resources.gpusPerWorker=0.5"],
     ["gpusPerWorker is 0.5", "whole GPUs"]),
]  # fmt: skip

#: (values, the place that the schema names).
SCHEMA: list[tuple[dict[str, Any], str]] = [
    ({"imagee": "x"}, "imagee"),
    ({"image": {"name": "x"}}, "/image"),
    ({"image": {"repository": ""}}, "/image/repository"),
    ({"image": {"repository": "Upper/Case"}}, "/image/repository"),
    ({"image": {"registry": "https://reg"}}, "/image/registry"),
    ({"image": {"registry": "reg/"}}, "/image/registry"),
    ({"image": {"tag": "a b"}}, "/image/tag"),
    ({"image": {"digest": "sha256:1"}}, "/image/digest"),
    ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy"),
    ({"submitImage": {"repository": "a\nb"}}, "/submitImage/repository"),
    ({"imagePullSecrets": [{"name": "a"}]}, "/imagePullSecrets/0"),
    ({"imagePullSecrets": ["A"]}, "/imagePullSecrets/0"),
    ({"storage": "gs://bucket"}, "/storage"),
    ({"storage": "/data"}, "/storage"),
    ({"storage": "s3://UPPER/x"}, "/storage"),
    ({"storage": "s3://bucket/x?y"}, "/storage"),
    ({"storage": "s3://bucket/a\nb"}, "/storage"),
    ({"storageEndpoint": "minio:9000"}, "/storageEndpoint"),
    ({"storageEndpoint": "http://key:secret@minio"}, "/storageEndpoint"),
    ({"clientEndpoint": "ftp://minio"}, "/clientEndpoint"),
    ({"credentialsSecret": "My Secret"}, "/credentialsSecret"),
    ({"credentialsSecret": "x" * 64}, "/credentialsSecret"),
    ({"createCredentials": {"accessKey": "x"}}, "/createCredentials"),
    ({"createCredentials": {"accessKeyId": "a b"}}, "/createCredentials/accessKeyId"),
    ({"workloadIdentity": {"cidrs": ["metadata"]}}, "/workloadIdentity/cidrs/0"),
    ({"workloadIdentity": {"ports": []}}, "/workloadIdentity/ports"),
    ({"serviceAccount": {"name": ""}}, "/serviceAccount/name"),
    ({"serviceAccount": {"annotations": {"a": 1}}}, "/serviceAccount/annotations/a"),
    ({"rbac": {"users": ["jane"]}}, "/rbac/users/0"),
    ({"rbac": {"users": [{"kind": "Robot", "name": "x"}]}}, "/rbac/users/0/kind"),
    ({"rbac": {"clusterWide": True}}, "/rbac"),
    ({"head": {"cpu": 0}}, "/head/cpu"),
    ({"head": {"memory": "2Gi"}}, "/head"),
    ({"head": {"memoryGib": "2Gi"}}, "/head/memoryGib"),
    ({"sharedMemoryMib": 0}, "/sharedMemoryMib"),
    ({"sharedMemoryMib": 1.5}, "/sharedMemoryMib"),
    ({"retries": 101}, "/retries"),
    ({"retries": -1}, "/retries"),
    ({"drainSeconds": 0}, "/drainSeconds"),
    ({"keepClusterSeconds": -1}, "/keepClusterSeconds"),
    ({"protectHead": "yes"}, "/protectHead"),
    ({"priorityClass": "a_b"}, "/priorityClass"),
    ({"runtimeClass": "-x"}, "/runtimeClass"),
    ({"nodeSelector": {"a": 1}}, "/nodeSelector/a"),
    ({"headNodeSelector": {"a b": "c"}}, "/headNodeSelector"),
    ({"tolerations": [{"effect": "Never"}]}, "/tolerations/0/effect"),
    ({"tolerations": [{"keys": "x"}]}, "/tolerations/0"),
    ({"labels": {"a": "b c"}}, "/labels/a"),
    ({"labels": {"a": "x" * 64}}, "/labels/a"),
    ({"annotations": {"a": True}}, "/annotations/a"),
    ({"environment": {"A-B": "x"}}, "/environment"),
    ({"environment": {"A": 1}}, "/environment/A"),
    ({"networkPolicy": {"enabled": "true"}}, "/networkPolicy/enabled"),
    ({"networkPolicy": {"allow": "all"}}, "/networkPolicy"),
    ({"networkPolicy": {"operatorNamespace": ""}}, "/networkPolicy/operatorNamespace"),
    ({"networkPolicy": {"metricsPorts": [70000]}}, "/networkPolicy/metricsPorts/0"),
    ({"networkPolicy": {"storage": {"cidrs": ["10.0.0.1"]}}}, "/networkPolicy/storage/cidrs/0"),
    ({"networkPolicy": {"extraEgress": [{"from": []}]}}, "/networkPolicy/extraEgress/0"),
    ({"priorityClasses": {"classes": [{"name": "a", "value": 2000000000, "preempts": True}]}}, "/classes/0/value"),
    ({"queue": {"cpus": 0}}, "/queue/cpus"),
    ({"queue": {"gpus": 1.5}}, "/queue/gpus"),
    ({"queue": {"preemption": "Always"}}, "/queue/preemption"),
    ({"quota": {"hard": {"pods": "many"}}}, "/quota/hard/pods"),
    ({"limitRange": {"default": {"cpu": "1"}}}, "/limitRange/default"),
    ({"limitRange": {"max": {"cpu": "1"}}}, "/limitRange/max"),
    ({"sharedCluster": {"replicas": 3}}, "/sharedCluster"),
    ({"sharedCluster": {"token": {"value": "short"}}}, "/sharedCluster/token/value"),
    ({"sharedCluster": {"workers": {"max": 0}}}, "/sharedCluster/workers/max"),
    ({"sharedCluster": {"autoscaler": {"idleSeconds": 0}}}, "/sharedCluster/autoscaler/idleSeconds"),
    ({"test": {"memoryMib": 1}}, "/test/memoryMib"),
]


@pytest.mark.parametrize(("sets", "words"), SENTENCES)
def test_a_sentence(sets: list[str], words: list[str]) -> None:
    said = helm.refused("highwater", *sets)
    sentence = said.rpartition("): ")[2].strip().splitlines()[0]
    assert all(word in sentence for word in words), said
    assert "%!" not in sentence


@pytest.mark.parametrize(("values", "place"), SCHEMA, ids=[json.dumps(values)[:60] for values, _ in SCHEMA])
def test_the_schema_names_the_place(values: dict[str, Any], place: str) -> None:
    said = helm.refused("highwater", values=values)
    assert "don't meet the specifications of the schema" in said
    assert place in said


def test_a_cluster_without_kuberay() -> None:
    said = helm.refused("highwater", api_versions=())
    assert "this cluster has no KubeRay" in said
    assert "helm install kuberay-operator" in said


def test_a_queue_without_kueue() -> None:
    said = helm.refused("highwater", "queue.enabled=true")
    assert "this cluster has no Kueue" in said
    assert "install Kueue" in said


def test_a_given_key_is_not_told() -> None:
    said = helm.refused("highwater", values={"environment": {"AWS_SECRET_ACCESS_KEY": "qx7-very-secret"}})
    assert "qx7" not in said
