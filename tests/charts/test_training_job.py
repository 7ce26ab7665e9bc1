"""The chart `training-job`: what it renders besides the run's own objects, and what it refuses in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.specfile import recipes
from tests.charts.helm import CHARTS, Object, lint, one, refused, template
from tests.charts.values_table import out_of_date

CHART = "training-job"
BASE: dict[str, Any] = {
    "recipe": "language",
    "platform": {"image": "registry/worker:1", "storage": "s3://bucket/runs", "credentialsSecret": "keys"},
}
#: Values under which each object of the chart is there.
SHAPES: dict[str, dict[str, Any]] = {
    "run": BASE,
    "many": BASE | {"workers": 5, "resources": {"gpusPerWorker": 2}, "queue": "team"},
    "one-worker": BASE | {"workers": 1},
    "schedule": {"recipe": "language", "image": "registry/worker:1", "schedule": "0 3 * * *"},
}


def made(release: str = "sotu", **values: Any) -> list[Object]:
    return template(CHART, values=BASE | values, release=release)


def scheduled(**values: Any) -> list[Object]:
    return template(CHART, values=SHAPES["schedule"] | values, release="nightly")


def pods(objects: list[Object]) -> list[Object]:
    """All pods and templates of pods, as pods."""
    found = []
    for body in objects:
        spec = body["spec"]
        if body["kind"] == "Pod":
            found.append(body)
        elif body["kind"] == "Job":
            found.append(spec["template"])
        elif body["kind"] == "CronJob":
            found.append(spec["jobTemplate"]["spec"]["template"])
        elif body["kind"] == "RayJob":
            cluster = spec["rayClusterSpec"]
            found += [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return found


def environment(pod: Object) -> dict[str, str]:
    entries = pod["spec"]["containers"][0]["env"]
    return {entry["name"]: entry["value"].replace("$$", "$") for entry in entries}


@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
def test_all_pods_are_restricted_and_have_resources(values: dict[str, Any]) -> None:
    found = pods(template(CHART, values=values, release="sotu"))
    assert found
    for pod in found:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all("emptyDir" in volume for volume in spec["volumes"])
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_the_pods_of_a_run_get_no_token_and_those_that_need_one_do() -> None:
    tokens = {
        pod["metadata"].get("labels", {}).get("app.kubernetes.io/component", "test"): (
            pod["spec"]["serviceAccountName"],
            pod["spec"]["automountServiceAccountToken"],
        )
        for pod in pods(made())
    }
    assert tokens == {
        "head": ("highwater-run", False),
        "worker": ("highwater-run", False),
        "submit": ("highwater-submit", True),
    }


def test_pods_that_talk_to_the_api_server_are_none_of_a_run() -> None:
    for pod in pods(made()) + pods(scheduled()):
        labels = pod["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "highwater"
        assert ("highwater.io/run" in labels) == (labels["app.kubernetes.io/component"] in ("head", "worker"))


def test_what_is_given_travels_as_overrides() -> None:
    told = environment(pods(made(set=["batch=8", "seed=1000000"], threads=3, workers=4, priority="high"))[1])
    assert told["HIGHWATER_SPEC"] == "language"
    assert json.loads(told["HIGHWATER_SET"]) == [
        "batch=8",
        "seed=1000000",
        "workers=4",
        "threads=3",
        "resources.cpus_per_worker=1",
        "resources.gpus_per_worker=0",
        "resources.memory_gib=4",
        'storage="s3://bucket/runs"',
        'cluster.priority="high"',
    ]


def test_fractions_and_lists_may_be_given_by_set() -> None:
    sets = (
        "recipe=language",
        "image=x:1",
        "storage=s3://bucket",
        "resources.cpusPerWorker=0.2",
        "set={steps=60,batch=8}",
    )
    job = one(template(CHART, *sets, "workers=4", "resources.memoryGib=1.5", release="sotu"), "RayJob")
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert group["replicas"] == 4
    assert group["template"]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "300m", "memory": "1536Mi"}
    texts = json.loads(environment(group["template"])["HIGHWATER_SET"])
    assert texts[:2] == ["steps=60", "batch=8"]
    assert "resources.cpus_per_worker=0.2" in texts


def test_each_rendering_makes_up_a_submission_unless_one_is_given() -> None:
    def submission(**values: Any) -> str:
        job = one(made(**values), "RayJob")
        told = environment(pods([job])[1])["HIGHWATER_SUBMISSION"]
        assert told == job["metadata"]["annotations"]["highwater.io/submission"]
        return told

    assert submission() != submission()
    assert len(submission()) == 8
    assert submission(submission="build-7") == "build-7"


@pytest.mark.parametrize("values", [{"platform": {"queue": "all"}}, {"platform": {"queue": None}}])
def test_null_unsets_what_the_platform_says(values: dict[str, Any]) -> None:
    job = one(made(platform=BASE["platform"] | values["platform"]), "RayJob")
    assert ("suspend" in job["spec"]) == (values["platform"]["queue"] is not None)


def test_a_schedule_sends_runs_by_the_command() -> None:
    objects = scheduled(timeZone="Europe/Berlin", until="fit", set=["batch=8"], submit={"image": "slim:1"})
    assert {body["kind"] for body in objects} == {"CronJob", "Pod"}
    spec = one(objects, "CronJob")["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 3 * * *", "Europe/Berlin")
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == ("Forbid", 600)
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    pod = spec["jobTemplate"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    assert container["image"] == "slim:1"
    assert container["command"] == [
        *("highwater", "run", "-", "--cluster", "--namespace", "runs", "--detach"),
        *("--name", "nightly-{time}", "--until", "fit"),
    ]
    told = environment(pod)
    assert told["HIGHWATER_SPEC"] == "language"
    # The storage is the platform's, each time anew; the image is the run's, not that of the command.
    assert json.loads(told["HIGHWATER_SET"]) == [
        "batch=8",
        "workers=2",
        "resources.cpus_per_worker=1",
        "resources.gpus_per_worker=0",
        "resources.memory_gib=4",
        'cluster.image="registry/worker:1"',
    ]


def test_a_schedule_is_tested_without_sending_anything() -> None:
    command = one(scheduled(), "Pod")["spec"]["containers"][0]["command"]
    assert command[:4] == ["highwater", "run", "-", "--cluster"]
    assert "--dry-run" in command


def test_uninstall_lets_the_run_save_and_ends_by_itself() -> None:
    job = one(made(), "Job", "sotu-save")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert job["spec"]["activeDeadlineSeconds"] == 180
    command = [word.replace("$$", "$") for word in pods([job])[0]["spec"]["containers"][0]["command"]]
    assert command[:2] == ["sh", "-c"]
    assert command[3:] == ["save", "sotu", "runs"]
    assert 'highwater cancel "$1" --cluster --namespace "$2" --wait 120 ||' in command[2]
    assert not [body for body in made(saveOnUninstall=False) if body["kind"] == "Job"]


def test_the_test_waits_for_the_run_itself() -> None:
    pod = one(made(), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    command = pod["spec"]["containers"][0]["command"]
    assert command[:2] == ["python", "-c"]
    assert command[2].replace("$$", "$") == (CHARTS / CHART / "files" / "ended.py").read_text()
    assert command[3:] == ["sotu", "runs", "1500"]


def test_helms_labels_stand_on_its_own_objects_alone() -> None:
    for body in made() + scheduled():
        assert body["metadata"]["labels"]["helm.sh/chart"].startswith("training-job-")
    for pod in [pod for pod in pods(made()) + pods(scheduled()) if pod.get("kind") != "Pod"]:
        assert "helm.sh/chart" not in pod["metadata"]["labels"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"recipe": None}, "there is nothing to run; give recipe=NAME"),
    ({"spec": "task: language"}, "recipe and spec are both given"),
    ({"recipe": None, "spec": " \n"}, "spec is empty"),
    ({"recipe": None, "spec": "task: ["}, "spec is not YAML with fields"),
    ({"recipe": None, "spec": "runtime: 3"}, "runtime is not a section of fields"),
    ({"recipe": None, "spec": "runtime: {packages: [src]}"}, "runtime.packages are folders of your machine"),
    ({"recipe": None, "spec": "runtime: {requirements: einops}"}, "runtime.requirements is not a list"),
    ({"recipe": None, "spec": "runtime: {requirements: [3]}"}, "an entry that is not a line of pip"),
    ({"recipe": None, "spec": 'runtime: {requirements: ["a\\nb"]}'}, "an entry that is not a line of pip"),
    ({"set": ["workers=3"]}, r'set has "workers=3", and the chart has values for that; give workers instead'),
    ({"set": [" workers = 3"]}, "give workers instead"),
    ({"set": ["resources={cpus_per_worker: 3}"]}, "give resources instead"),
    ({"set": ["resources.memory_gib=3"]}, "give resources instead"),
    ({"set": ["cluster.queue=a"]}, "give queue, priority, image, waitingSeconds or deadlineSeconds instead"),
    ({"set": ["storage=/tmp"]}, "give storage instead"),
    ({"set": ["storage_endpoint=http://x"]}, "give storageEndpoint instead"),
    ({"set": ["runtime.packages=[a]"]}, "set has a field of runtime"),
    ({"set": ["no equals"]}, "at '/set/0'"),
    ({"set": ["=5"]}, "at '/set/0'"),
    ({"set": "batch=8"}, "at '/set'"),
    (
        {"platform": {}},
        "namespace runs has no ConfigMap highwater-platform that could be read; install charts/highwater",
    ),
    ({"platform": {"image": "x:1"}}, "there is no storage that pods can share; give storage=s3://BUCKET/PREFIX"),
    ({"storage": "/tmp/runs"}, "at '/storage'"),
    ({"storage": "s3://b"}, "at '/storage'"),
    ({"storageEndpoint": "http://user:key@server"}, "at '/storageEndpoint'"),
    ({"until": "never"}, "at '/until'"),
    ({"timeZone": "Europe/Berlin"}, "timeZone belongs to a schedule, and there is none"),
    ({"schedule": "0 3 * * *"}, "a schedule starts runs by the command, which reads the ConfigMap highwater-platform"),
    ({"schedule": "0 3 * *"}, "at '/schedule'"),
    ({"schedule": "TZ=UTC 0 3 * * *"}, "at '/schedule'"),
    ({"resources": {"gpusPerWorker": 1.5}}, "give a share of one GPU (at most 1) or a whole number of GPUs"),
    ({"resources": {"cpusPerWorker": "0.001"}}, "resources.cpusPerWorker is 0.001; give 0.01 to 1024"),
    ({"resources": {"memoryGib": "0.1"}}, "resources.memoryGib is 0.1; give 0.25 to 65536"),
    ({"resources": {"cpus": 1}}, "additional properties 'cpus' not allowed"),
    ({"worker": 1}, "additional properties 'worker' not allowed"),
    ({"submit": {"img": "x"}}, "additional properties 'img' not allowed"),
    ({"platform": {"iamge": "x"}}, "additional properties 'iamge' not allowed"),
    ({"platform": {"head": {"gpu": 1}}}, "additional properties 'gpu' not allowed"),
    ({"platform": {"tolerations": [{"name": "x"}]}}, "additional properties 'name' not allowed"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED)
def test_it_says_what_it_refuses(values: dict[str, Any], words: str) -> None:
    assert words in refused(CHART, values=BASE | values, release="sotu")


def test_a_schedule_leaves_room_for_the_time_in_the_name() -> None:
    longest = "n" * 33
    template(CHART, values=SHAPES["schedule"], release=longest)
    assert "it takes 1 to 33 lowercase letters" in refused(CHART, values=SHAPES["schedule"], release=longest + "n")
    words = refused(CHART, values=SHAPES["schedule"] | {"submission": "x"}, release="nightly")
    assert "submission belongs to one run" in words


def test_lint_finds_nothing() -> None:
    lint(CHART)
    lint(CHART, values=BASE)
    lint(CHART, values=SHAPES["schedule"])


def test_the_readme_has_the_table_of_values() -> None:
    assert not out_of_date(CHARTS / CHART), "python -m tests.charts.values_table charts/training-job"


def test_the_schema_leaves_no_object_open() -> None:
    schema = json.loads((CHARTS / CHART / "values.schema.json").read_text())

    def open_ones(node: Any, path: str) -> list[str]:
        if isinstance(node, list):
            return [found for item in node for found in open_ones(item, path)]
        if not isinstance(node, dict):
            return []
        here = [path] if "object" in node.get("type", "") and node.get("additionalProperties") is not False else []
        return here + [found for key, item in node.items() for found in open_ones(item, f"{path}/{key}")]

    # Helm itself adds `global`.
    assert open_ones(schema, "") == ["/properties/global"]


def test_the_chart_names_no_registry() -> None:
    for file in Path(CHARTS / CHART).rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert not any(place in text for place in ("docker.io", "ghcr.io", "quay.io", "pypi.org")), file


def test_the_schema_knows_the_recipes() -> None:
    schema = json.loads((CHARTS / "training-job/values.schema.json").read_text())
    assert schema["properties"]["recipe"]["enum"] == [*(recipe.name for recipe in recipes()), None]
