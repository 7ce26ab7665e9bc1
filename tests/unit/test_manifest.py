"""The objects of a run on a cluster: what decides their shape, and what travels as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.cluster.manifest import CODE_BYTES, Request, driver_environment, objects, on_cluster, ray_job
from jobs.cluster.platform import Platform, read_platform
from jobs.cluster.pods import milli
from jobs.errors import SpecError
from jobs.spec import JobSpec
from jobs.specfile import load_spec, spec_from_text

PLATFORM: dict[str, Any] = {"image": "registry/worker:1", "storage": "s3://bucket/runs"}
REQUEST = Request("first", "team", "abc")


def spec_of(*changes: str) -> JobSpec:
    return on_cluster(load_spec("language", changes), platform_of())


def platform_of(**changes: Any) -> Platform:
    return Platform.model_validate(PLATFORM | changes)


def groups(*changes: str, **platform: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    cluster = ray_job(spec_of(*changes), REQUEST, platform_of(**platform))["spec"]["rayClusterSpec"]
    return cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]


def variables(group: dict[str, Any]) -> dict[str, str]:
    return {v["name"]: v["value"] for v in group["template"]["spec"]["containers"][0]["env"]}


def test_a_run_is_a_rayjob_with_budgets() -> None:
    kinds = [(o["kind"], o["metadata"]["name"]) for o in objects(spec_of("workers=4"), REQUEST, platform_of())]
    assert kinds == [
        ("RayJob", "first"),
        ("PodDisruptionBudget", "first-head"),
        ("PodDisruptionBudget", "first-worker"),
    ]
    one = objects(spec_of("workers=1"), REQUEST, platform_of(protectHead=False))
    assert [o["kind"] for o in one] == ["RayJob"]


def test_every_object_carries_the_runs_labels_and_the_platforms() -> None:
    for made in objects(spec_of(), REQUEST, platform_of(labels={"team": "vision"})):
        assert made["metadata"]["namespace"] == "team"
        assert made["metadata"]["labels"].items() >= {"team": "vision", "highwater.io/run": "first"}.items()


def test_pods_pass_the_restricted_standard_and_outlast_their_drain() -> None:
    for group in groups():
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
        assert pod["terminationGracePeriodSeconds"] > int(variables(group)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])


def test_the_head_computes_nothing_and_knows_nothing_of_the_run() -> None:
    head, worker = groups()
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "HIGHWATER_SPEC" not in variables(head)
    assert "HIGHWATER_SPEC" in variables(worker)


def test_a_pod_holds_one_rank_and_has_room_for_the_driver() -> None:
    _, group = groups("resources.cpus_per_worker=1.5", "resources.gpus_per_worker=0.5", "resources.memory_gib=6.5")
    assert json.loads(json.loads(group["rayStartParams"]["resources"])) == {"highwater_rank": 1}
    assert group["rayStartParams"]["num-cpus"] == "3"
    resources = group["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "1600m", "memory": "6656Mi", "nvidia.com/gpu": "1"}
    assert resources["limits"] == {"memory": "6656Mi", "nvidia.com/gpu": "1"}


@pytest.mark.parametrize(("cpus", "text"), [(1.0, "1"), (0.2 + 0.1, "300m"), (0.0001, "1m"), (1.5, "1500m")])
def test_cpus_are_rounded_up_to_thousandths(cpus: float, text: str) -> None:
    assert milli(cpus) == text


@pytest.mark.parametrize("nasty", ["$(HOSTNAME)", "$$", "'; rm -rf / #", "{{ .Values }}", "a\nb: c", "雪", '"\\'])
def test_texts_arrive_as_they_are(nasty: str) -> None:
    spec = spec_of().model_copy(update={"storage": f"s3://bucket/{nasty}"})
    sent = variables(ray_job(spec, REQUEST, platform_of())["spec"]["rayClusterSpec"]["workerGroupSpecs"][0])
    # What the kubelet makes of it: `$$` is a dollar, and `$(` is left alone only behind one.
    assert json.loads(sent["HIGHWATER_SPEC"].replace("$$", "$"))["storage"] == f"s3://bucket/{nasty}"
    assert "$(" not in sent["HIGHWATER_SPEC"].replace("$$", "")


def test_a_spec_comes_back_equal_from_its_variable() -> None:
    spec = spec_of("seed=9223372036854775807", "learning_rate=1e-3")
    assert spec_from_text(driver_environment(spec, REQUEST)["HIGHWATER_SPEC"]) == spec


def test_a_queue_holds_the_run_until_it_is_admitted() -> None:
    job = ray_job(spec_of(), REQUEST, platform_of(queue="gpus"))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["spec"]["suspend"] is True
    assert "suspend" not in ray_job(spec_of(), REQUEST, platform_of())["spec"]


def test_the_specs_cluster_section_wins_over_the_platform() -> None:
    changes = ["cluster.queue=mine", "cluster.image=other:2", "cluster.priority=low", "cluster.deadline_s=60"]
    job = ray_job(spec_of(*changes), REQUEST, platform_of(queue="gpus", priorityClass="high"))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "mine"
    assert job["spec"]["activeDeadlineSeconds"] == 60
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert (pod["containers"][0]["image"], pod["priorityClassName"]) == ("other:2", "low")


def test_own_code_travels_beside_the_run() -> None:
    request = Request("first", "team", "abc", code=b"PK")
    job, code = objects(spec_of("workers=1"), request, platform_of(protectHead=False))
    assert code["binaryData"] == {"code.zip": "UEs="}
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert variables(group)["PYTHONPATH"] == "/etc/highwater/code/code.zip"
    assert {"name": "code", "configMap": {"name": "first-code"}} in group["template"]["spec"]["volumes"]


def test_what_is_too_large_is_refused() -> None:
    with pytest.raises(SpecError, match=r"build them into an image"):
        objects(spec_of(), Request("first", "team", "abc", code=b"x" * (CODE_BYTES + 1)), platform_of())
    long = spec_of().model_copy(update={"storage": "s3://bucket/" + "x" * 200_000})
    with pytest.raises(SpecError, match=r"bytes as JSON"):
        ray_job(long, REQUEST, platform_of())


def test_a_local_storage_becomes_the_platforms_or_is_refused() -> None:
    spec = load_spec("language")
    assert on_cluster(spec, platform_of(storageEndpoint="http://s3:7070")).storage_endpoint == "http://s3:7070"
    assert on_cluster(spec, platform_of()).storage == "s3://bucket/runs"
    with pytest.raises(SpecError, match=r"give --storage s3://"):
        on_cluster(spec, Platform(image="x"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("{}", "image"),
        ('{"image": "x", "hed": 1}', "hed"),
        ('{"image": "x", "retries": "three"}', "retries"),
        ('{"image": "x", "retries": 101}', "retries"),
    ],
)
def test_a_platform_that_cannot_be_read_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_platform(text, "ConfigMap highwater-platform")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["language", " language\n", "task: image\nmodel: {}\n", '{"task": "x"}', "", "no-such"]
)
def test_a_text_is_a_recipe_yaml_or_json(text: str) -> None:
    if text.strip() == "language":
        assert spec_from_text(text, ["epochs=7"]).epochs == 7
    else:
        with pytest.raises(SpecError):
            spec_from_text(text)
