"""No text, name or number alters a manifest: each is refused with a sentence, or carried byte for byte.

The same cases go through the chart `training-job` (by values files and by --set-json) and through the command's own
`jobs.cluster.manifest`; what they carry, a real API server takes and gives back.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from jobs import yaml12
from jobs.cluster.manifest import Request, objects, on_cluster
from jobs.cluster.platform import read_platform
from jobs.errors import SpecError
from jobs.names import check_name
from jobs.specfile import spec_from_text
from tests.charts.helm import CHARTS, Object
from tests.charts.hostile import NAMES, NUMBERS, OVERRIDES, TEXTS

CHART = str(CHARTS / "training-job")
RECIPE: dict[str, Any] = {"recipe": "language", "submission": "first", "image": "x:1", "storage": "s3://bucket/runs"}
#: A variable holds neither of them, or it would not be what was given.
NEVER_CARRIED = ("nul", "nul-alone", "replacement", "longer-than-a-variable")


def spec_with(text: str) -> str:
    """A spec that holds the text where any text may stand."""
    document = {
        "task": "language",
        "data": {"source": "bundled:sotu"},
        "model": {"kind": "awd-lstm"},
        "batch": 8,
        "bptt": 32,
        "learning_rate": 0.01,
        "steps": 60,
        "search": {"space": {"seed": [text]}},
    }
    return json.dumps(document)


@dataclass(frozen=True)
class Place:
    """Where a text can be given, in a form that is valid as far as the text is."""

    path: str
    wrap: Callable[[str], str] = str
    key: bool = False


PLACES = [
    Place("/spec", spec_with),
    Place("/set/0", lambda text: f"model.name={text}"),
    Place("/platform/environment/GIVEN"),
    Place("/platform/annotations/given"),
    Place("/image", lambda text: f"registry/{text}"),
    Place("/storage", lambda text: f"s3://bucket/{text}"),
    Place("/storageEndpoint", lambda text: f"http://server/{text}"),
    Place("/resources/acceleratorType"),
    Place("/queue"),
    Place("/priority"),
    Place("/until"),
    Place("/submission"),
    Place("/platform/imagePullPolicy"),
    Place("/platform/imagePullSecrets/0"),
    Place("/platform/credentialsSecret"),
    Place("/platform/serviceAccount"),
    Place("/platform/runtimeClass"),
    Place("/platform/labels/given"),
    Place("/platform/nodeSelector/given"),
    Place("/platform/headNodeSelector/given"),
    Place("/platform/tolerations/0/key"),
    Place("/platform/tolerations/0/value"),
    Place("/platform/tolerations/0/effect"),
    Place("/platform/labels", lambda text: f"key{text}", key=True),
    Place("/platform/annotations", lambda text: f"key{text}", key=True),
    Place("/platform/nodeSelector", lambda text: f"key{text}", key=True),
    Place("/platform/environment", lambda text: f"KEY{text}", key=True),
]
#: Into which any text goes.
OPEN = {"/spec", "/set/0", "/platform/environment/GIVEN", "/platform/annotations/given"}


def marker(place: Place) -> str:
    """A plain text of this place's own."""
    return "marker" + "".join(c for c in place.path if c.isalnum()).lower() + ("key" if place.key else "")


def values_with(places: list[Place], text_of: Callable[[Place], str]) -> dict[str, Any]:
    """Values that give each of these places its text."""
    values: dict[str, Any] = {"submission": "first", "platform": {"image": "x:1", "storage": "s3://bucket/runs"}}
    for place in places:
        text = place.wrap(text_of(place))
        if place.key:
            put(values, f"{place.path.removeprefix('/')}", text, "value")
        else:
            folder, _, name = place.path.removeprefix("/").rpartition("/")
            put(values, folder, name, text)
    if "spec" not in values:
        values["recipe"] = "language"
    given: dict[str, Any] = listed(values)
    return given


def put(values: dict[str, Any], folder: str, name: str, value: str) -> None:
    for part in folder.split("/") if folder else []:
        values = values.setdefault(part, {})
    values[name] = value


def listed(value: Any) -> Any:
    """Mappings with the keys 0, 1, ... as the lists that they stand for."""
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() and len(key) == 1 for key in value):
        return [listed(value[key]) for key in sorted(value)]
    return {key: listed(item) for key, item in value.items()}


class _Quoted(yaml.SafeDumper):
    """YAML in ASCII that quotes all texts: JSON's pairs for an emoji are no YAML, and Go reads 1e3 as a number."""


_Quoted.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def helm(*arguments: str, values: dict[str, Any] | None = None, release: str = "sotu") -> tuple[str, str | None]:
    """What `helm template` prints, or else None and what it refuses with."""
    program = shutil.which("helm")
    if program is None:
        pytest.skip("no helm on PATH: hostile values are NOT tested here")
    words = [program, "template", release, CHART, "--namespace", "runs", *arguments]
    text = None if values is None else yaml.dump(values, Dumper=_Quoted, allow_unicode=False).encode()
    if text is not None:
        words += ["--values", "-"]
    done = subprocess.run(words, input=text, capture_output=True, timeout=120, check=False)
    error = done.stderr.decode()
    return (done.stdout.decode(), None) if done.returncode == 0 else ("", error)


def loaded(text: str) -> list[Object]:
    return [body for body in yaml.load_all(text, Loader=yaml.CSafeLoader) if body]


def refused_places(error: str, places: list[Place]) -> list[Place]:
    """The places that this refusal names."""
    named = []
    for place in places:
        schema = f"at '{place.path}': additional properties" if place.key else f"at '{place.path}':"
        dotted = place.path.removeprefix("/").replace("/0", "[0]").replace("/", ".")
        ours = f"): {dotted} " in error or f"): {dotted}: " in error
        if (schema in error) or (ours and not place.key):
            named.append(place)
    return named


def heard(made: list[Object]) -> list[Any]:
    """The objects as Kubernetes and the driver would understand them: variables and commands expanded, sets decoded."""

    def understood(value: Any) -> Any:
        if (
            isinstance(value, list)
            and value
            and all(isinstance(v, dict) and set(v) == {"name", "value"} for v in value)
        ):
            return {entry["name"]: variable(entry["name"], entry["value"].replace("$$", "$")) for entry in value}
        if isinstance(value, list):
            return [understood(item) for item in value]
        if isinstance(value, dict):
            return {key: understood(item) for key, item in value.items()}
        return value

    def variable(name: str, value: str) -> Any:
        if name != "HIGHWATER_SET":
            return value
        sets = json.loads(value)
        # What was given as a set is carried as it stands; what the chart adds is YAML.
        return [text if text.startswith("model.name=") else override(text) for text in sets]

    def override(text: str) -> list[Any]:
        field, _, value = text.partition("=")
        return [field, yaml12.loads(value, text)]

    return [understood(body) for body in made]


def replaced(value: Any, texts: dict[str, str]) -> Any:
    """The same with one text for another, in keys too."""
    if isinstance(value, str):
        for old, new in texts.items():
            value = value.replace(old, new)
        return value
    if isinstance(value, list):
        return [replaced(item, texts) for item in value]
    if isinstance(value, dict):
        return {replaced(key, texts): replaced(item, texts) for key, item in value.items()}
    return value


@functools.cache
def plain(paths: frozenset[tuple[str, bool]]) -> str:
    """What the chart renders with a marker in each of these places."""
    places = [place for place in PLACES if (place.path, place.key) in paths]
    text, error = helm(values=values_with(places, marker))
    assert error is None, error
    return text


@pytest.mark.parametrize("name", TEXTS)
def test_the_chart_refuses_or_carries_every_text(name: str) -> None:
    places, text = list(PLACES), TEXTS[name]
    rendered, error = helm(values=values_with(places, lambda _: text))
    while error is not None:
        assert "panic" not in error, error
        named = refused_places(error, places)
        assert named, f"nobody would find the culprit: {error[:2000]}"
        places = [place for place in places if place not in named]
        rendered, error = helm(values=values_with(places, lambda _: text))

    carried = {place.path for place in places if not place.key}
    # JSON has escapes of its own for what a variable cannot hold: in a spec only the length counts.
    escaped = {"/spec"} if name != "longer-than-a-variable" else set()
    assert carried & OPEN == (escaped if name in NEVER_CARRIED else OPEN)
    expected = heard(loaded(plain(frozenset((place.path, place.key) for place in places))))
    texts = {place.wrap(marker(place)): place.wrap(text) for place in places}
    assert heard(loaded(rendered)) == replaced(expected, texts)


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in NEVER_CARRIED and len(TEXTS[name]) < 9000])
def test_set_json_is_the_same_as_a_file(name: str) -> None:
    places = [place for place in PLACES if place.path in OPEN]
    values = values_with(places, lambda _: TEXTS[name])
    arguments = [word for key, value in values.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
    assert helm(*arguments) == helm(values=values)


@pytest.mark.parametrize(
    "data",
    [b"task: language\r\nseed: 1\r\n", b'# \xc3\xa9 {{ fail "x" }} $(HOME) \xf0\x9f\x98\x80\ntask: "$$"', b"a: 1"],
)
def test_a_spec_file_arrives_byte_for_byte(data: bytes, tmp_path: Any) -> None:
    (tmp_path / "spec.yaml").write_bytes(data)
    values = {key: value for key, value in RECIPE.items() if key != "recipe"}
    rendered, error = helm("--set-file", f"spec={tmp_path / 'spec.yaml'}", values=values)
    assert error is None, error
    assert spec_of(loaded(rendered)) == data.decode()


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"a: \xe9", b"- a list", b"a word", b"a: [", b"\x00", b"a: \x7f", b" ", b"{}"]
)
def test_a_spec_file_that_is_none_is_refused(data: bytes, tmp_path: Any) -> None:
    (tmp_path / "spec.yaml").write_bytes(data)
    values = {key: value for key, value in RECIPE.items() if key != "recipe"}
    _, error = helm("--set-file", f"spec={tmp_path / 'spec.yaml'}", values=values)
    assert error is not None
    assert "spec " in error


def spec_of(made: list[Object]) -> str:
    job = next(body for body in made if body["kind"] == "RayJob")
    pod = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    variables = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    return str(variables["HIGHWATER_SPEC"]).replace("$$", "$")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_refused_alike(name: str) -> None:
    with pytest.raises(SpecError, match="cannot be the name of a run"):
        check_name(NAMES[name])
    _, error = helm(values=RECIPE, release=NAMES[name])
    assert error is not None


@pytest.mark.parametrize("name", ["a", "sotu", "run-1", "a--b", "x" * 47])
def test_names_are_taken_alike(name: str) -> None:
    assert check_name(name) == name
    rendered, error = helm(values=RECIPE, release=name)
    assert error is None, error
    assert {body["metadata"]["name"] for body in loaded(rendered) if body["kind"] == "RayJob"} == {name}


@pytest.mark.parametrize(("path", "value"), NUMBERS)
def test_what_is_no_such_number_is_refused(path: str, value: Any) -> None:
    values = copy.deepcopy(RECIPE)
    folder, _, last = path.removeprefix("/").rpartition("/")
    put(values, folder, last, value)
    _, error = helm(values=values)
    assert error is not None, f"{path}={value!r} was taken"
    assert f"at '{path}'" in error or f"{path.removeprefix('/').replace('/', '.')} is " in error, error


@pytest.mark.parametrize("name", TEXTS)
def test_the_command_carries_every_text(name: str) -> None:
    text = TEXTS[name]

    def made(given: str) -> list[Any]:
        settings = {
            "image": "x:1",
            "storage": "s3://bucket/runs",
            "environment": {"A": given},
            "annotations": {"a": given},
        }
        platform = read_platform(json.dumps(settings), "the test's platform")
        spec = on_cluster(spec_from_text(spec_with(given)), platform)
        built = heard(json.loads(json.dumps(objects(spec, Request("sotu", "runs", "first"), platform))))
        told = built[0]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["env"]
        assert spec_from_text(told.pop("HIGHWATER_SPEC")) == spec
        return built

    if name == "longer-than-a-variable":
        with pytest.raises(SpecError, match="a pod takes at most"):
            made(text)
        return
    assert made(text) == replaced(made("marker"), {"marker": text})


@pytest.mark.parametrize("override", OVERRIDES)
def test_the_command_makes_no_number_that_kubernetes_cannot_hold(override: str) -> None:
    platform = read_platform(json.dumps({"image": "x:1", "storage": "s3://bucket/runs"}), "the test's platform")
    try:
        spec = spec_from_text("language", [override])
    except SpecError:
        return
    body = objects(spec, Request("sotu", "runs", "first"), platform)[0]["spec"]
    group = body["rayClusterSpec"]["workerGroupSpecs"][0]
    whole = [group["replicas"], body.get("activeDeadlineSeconds", 1), body.get("preRunningDeadlineSeconds", 1)]
    assert all(0 < number < 2**31 for number in whole)
    for amounts in group["template"]["spec"]["containers"][0]["resources"].values():
        assert all(re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?(m|Mi|Gi)?", amount) for amount in amounts.values()), (
            amounts
        )


def test_there_are_enough_cases() -> None:
    assert len(TEXTS) >= 60
    assert len(TEXTS) + len(NAMES) + len(NUMBERS) + len(OVERRIDES) > 150


# The real API server ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def own_namespace(what: str, **labels: str) -> Iterator[str]:
    """A namespace of its own in the cluster that HIGHWATER_TEST_CONTEXT names; without one the test is skipped."""
    wanted = os.environ.get("HIGHWATER_TEST_CONTEXT")
    if not wanted:
        pytest.skip(f"no cluster: HIGHWATER_TEST_CONTEXT is not set; {what} is NOT tested on an API server here")
    current = kubectl("config", "current-context").strip()
    if current != wanted:
        pytest.skip(f"the current context is {current} and not {wanted}: {what} is NOT tested there")
    name = f"hw-b-{what}-{os.getpid()}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl("create", "--filename=-", text=json.dumps(body))
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    with own_namespace("hostile") as name:
        yield name


def kubectl(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def one_by_one(text: str) -> Iterator[Object]:
    """JSON documents that stand one after the other, as kubectl prints several objects."""
    while text := text.lstrip():
        body, end = json.JSONDecoder().raw_decode(text)
        yield body
        text = text[end:]


def without_defaults(stored: Any, given: Any) -> Any:
    """Of what the server stored that which was given: it adds defaults."""
    if isinstance(given, dict):
        return {key: without_defaults(stored[key], value) for key, value in given.items() if key in stored}
    if isinstance(given, list) and isinstance(stored, list) and len(given) == len(stored):
        return [without_defaults(*pair) for pair in zip(stored, given, strict=True)]
    return stored


def test_the_api_server_gives_back_what_was_sent(namespace: str) -> None:
    sent: dict[str, Object] = {}
    places = [place for place in PLACES if place.path in OPEN]
    for i, (name, text) in enumerate(TEXTS.items()):
        if name in NEVER_CARRIED or name == "long-text":
            continue
        rendered, error = helm(values=values_with(places, lambda _, text=text: text), release=f"run-{i}")
        assert error is None, error
        job = next(body for body in loaded(rendered) if body["kind"] == "RayJob")
        job["metadata"]["namespace"] = namespace
        sent[job["metadata"]["name"]] = job
    everything = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(sent.values())})
    stored = kubectl("create", "--dry-run=server", "--output=json", "--filename=-", text=everything)
    for job in one_by_one(stored):
        given = sent.pop(job["metadata"]["name"])
        assert job["metadata"]["annotations"] == given["metadata"]["annotations"]
        assert without_defaults(job["spec"], given["spec"]) == given["spec"]
    assert not sent
