"""What a spec refuses, and which fields make another run of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from jobs import spec_checks
from jobs.spec import AUTO, Part, asides, differences, flatten
from jobs.spec_language import LanguageSpec


def document(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task": "language",
        "batch": 10,
        "learning_rate": 0.004,
        "epochs": 4,
        "bptt": 40,
        "data": {"source": "bundled:sotu"},
        "model": {"kind": "awd-lstm"},
    }
    return {key: value for key, value in (base | changes).items() if value is not ...}


def spec(**changes: Any) -> LanguageSpec:
    return LanguageSpec.model_validate(document(**changes))


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ({}, {}, []),
        ({}, {"storage": "s3://bucket/runs"}, []),
        ({}, {"storage_endpoint": "http://minio:9000"}, []),
        ({}, {"threads": 2, "memory_limit_mib": 100}, []),
        ({}, {"resources": {"gpus_per_worker": 1}, "cluster": {"queue": "team"}}, []),
        ({}, {"checkpointing": {"every_s": 5.0, "keep_last": 9}}, []),
        ({}, {"search": {"space": {"model.hidden": [1, 2]}}}, []),
        ({"batch": 20}, {"batch": 10, "workers": 2}, []),
        ({"batch": 40}, {"batch": 10, "workers": 2, "accumulation": 2}, []),
        ({}, {"epochs": 9}, []),
        ({"epochs": ..., "steps": 5}, {"epochs": ..., "steps": 6}, []),
        ({}, {"epochs": 3}, ["epochs"]),
        ({"epochs": ..., "steps": 5}, {"epochs": ..., "steps": 4}, ["steps"]),
        ({}, {"epochs": ..., "steps": 4}, ["epochs", "steps"]),
        ({}, {"seed": 7}, ["seed"]),
        ({}, {"batch": 11}, ["global_batch"]),
        ({}, {"workers": 2}, ["global_batch"]),
        ({}, {"model": {"kind": "awd-lstm", "hidden": 7}}, ["model.hidden"]),
        ({}, {"data": {"source": "other.txt"}, "seed": 1}, ["data.source", "seed"]),
        ({}, {"precision": "fp32"}, ["precision"]),
        ({}, {"batch": "auto"}, ["global_batch"]),
        ({"batch": "auto"}, {"batch": "auto", "workers": 3}, []),
        ({"batch": "auto"}, {"batch": "auto", "accumulation": 3}, ["global_batch"]),
        ({}, {"bptt": "auto"}, ["bptt"]),
    ],
)
def test_differences_name_what_changes_the_mathematics(old: Any, new: Any, names: list[str]) -> None:
    assert differences(spec(**old), spec(**new)) == names


def test_another_kind_of_model_differs_in_its_kind_and_its_own_fields() -> None:
    found = differences(spec(), spec(model={"kind": "qrnn"}))
    assert {"model.kind", "model.dropout_weight", "model.window"} <= set(found)


def test_global_batch_is_unknown_until_the_batch_is_measured() -> None:
    assert spec(workers=3, accumulation=2).global_batch == 60
    assert spec(batch="auto", workers=3).global_batch == AUTO


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 5}, "either epochs or steps"),
        ({"epochs": ...}, "either epochs or steps"),
        ({"optimizer": {"kind": "nt-asgd"}}, "schedule.kind to constant"),
        ({"optimizer": {"kind": "adamw", "momentum": 0.9}}, "betas instead"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "less than 1"),
        ({"precision": "fp16"}, "needs a GPU"),
        ({"bptt": 4}, "bptt_jitter.min_steps 5"),
        ({"learning_rate": float("inf")}, "finite"),
        ({"clip_norm": float("nan")}, "finite"),
        ({"resources": {"gpus_per_worker": 1.5}}, "whole number of GPUs"),
        ({"model": {"kind": "qrnn", "window": True}}, "integer"),
        ({"search": {"space": {"seed": []}}}, "at least 1"),
        ({"search": {"space": {"seed": [float("inf")]}}}, "finite"),
        ({"schedule": {"start_divisor": 0.5}}, "greater"),
        ({"batch": True}, "integer"),
        ({"seed": 2**63}, "less than"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace("(", r"\(")):
        spec(**changes)


def test_sensible_pairs_are_taken() -> None:
    spec(optimizer={"kind": "nt-asgd", "momentum": 0.5}, schedule={"kind": "constant"})
    spec(precision="fp16", resources={"gpus_per_worker": 0.5})
    spec(bptt=4, bptt_jitter=None)
    spec(bptt="auto", learning_rate=1)


@pytest.mark.parametrize("place", ["runs", "/a b/c", "~/runs", "s3://bucket", "s3://my.bucket-1/a/b/"])
def test_places(place: str) -> None:
    assert spec_checks.place(place) == place


@pytest.mark.parametrize(
    "place",
    [
        "",
        "  ",
        "a\nb",
        "gs://b/x",
        "file:///x",
        "S3://bucket",
        "s3://",
        "s3:///x",
        "s3://UP/x",
        "s3://a_b/x",
        "s3://user:key@bucket/x",
        "s3://bucket/../x",
        "s3://bucket/x?y=1",
        "s3://a..b/x",
        "s3://bucket/\x1b",
    ],
)
def test_refused_places(place: str) -> None:
    with pytest.raises(ValueError, match="s3://"):
        spec_checks.place(place)


@pytest.mark.parametrize("address", ["minio:9000", "ftp://x", "http://", "http://a b", "http://x:99999", "http://[x"])
def test_refused_endpoints(address: str) -> None:
    with pytest.raises(ValueError, match="an address"):
        spec_checks.endpoint(address)


def test_an_endpoint_may_not_hold_keys() -> None:
    assert spec_checks.endpoint("https://minio.example:9000") == "https://minio.example:9000"
    with pytest.raises(ValueError, match="AWS_SECRET_ACCESS_KEY"):
        spec_checks.endpoint("http://key:secret@minio:9000")


def test_corpora_labels_and_words() -> None:
    assert [spec_checks.corpus(c) for c in ("bundled:sotu", "cache:sotu", "a.txt", "s3://bucket/x")]
    for check, bad in ((spec_checks.corpus, "bundled:"), (spec_checks.corpus, "cache:../x"), (spec_checks.label, "-a")):
        with pytest.raises(ValueError, match=r"[a-z]"):
            check(bad)
    for bad in ("", "a b", "a\n"):
        with pytest.raises(ValueError, match=r"[a-z]"):
            spec_checks.word(bad)


def test_every_aside_section_is_set_aside_whole() -> None:
    names = asides(LanguageSpec)
    assert {"storage", "workers", "resources", "checkpointing", "cluster", "search"} <= names
    for name in ("resources", "checkpointing", "cluster"):
        annotation = LanguageSpec.model_fields[name].annotation
        kinds = [k for k in (annotation, *getattr(annotation, "__args__", ())) if isinstance(k, type)]
        part = next(kind for kind in kinds if issubclass(kind, Part))
        assert asides(part) == set(part.model_fields)


def test_flatten_keeps_lists_whole() -> None:
    assert flatten({"a": {"b": [1, {"c": 2}]}, "d": None}) == {"a.b": [1, {"c": 2}], "d": None}


def test_every_field_says_what_it_is() -> None:
    parts: list[type[Part]] = [Part]
    while parts:
        part = parts.pop()
        parts += part.__subclasses__()
        assert part.__module__ != "jobs.spec" or part.__doc__
        missing = [n for n, f in part.model_fields.items() if not f.description and n not in ("task", "kind")]
        assert not missing, (part, missing)
