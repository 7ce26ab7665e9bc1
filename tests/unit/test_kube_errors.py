"""Each answer of an API server becomes one sentence and one class."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from infra.kube_errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    KubeRayMissingError,
    NotFoundInKubeError,
    ThrottledError,
    UnauthorizedError,
    UnreachableError,
    explain,
    unreachable,
)
from jobs.errors import EXIT_CODES

WHERE = "namespace lab of context c"


def status(message: str = "", **details: Any) -> bytes:
    return json.dumps({"kind": "Status", "message": message, "details": details}).encode()


@pytest.mark.parametrize(
    ("code", "data", "ray", "kind", "says", "exits"),
    [
        (401, b"", False, UnauthorizedError, "log in to it", 2),
        (
            403,
            status('rayjobs.ray.io is forbidden: User "ann" cannot create resource "rayjobs" in API group "ray.io"'),
            True,
            ForbiddenError,
            'User "ann" cannot create resource "rayjobs"',
            2,
        ),
        (403, status("pods is forbidden: exceeded quota: small, requested: 2"), False, ForbiddenError, "free some", 2),
        (403, status("violates PodSecurity restricted"), False, ForbiddenError, "policy of the cluster", 2),
        (404, status("not found", name="demo", kind="rayjobs"), True, NotFoundInKubeError, "there is none", 2),
        (404, b"404 page not found\n", True, KubeRayMissingError, "install the KubeRay operator", 2),
        (404, status("no such resource"), True, KubeRayMissingError, "install the KubeRay operator", 2),
        (404, status("no such resource"), False, NotFoundInKubeError, "there is none", 2),
        (
            404,
            status("gone", name="lab", kind="namespaces"),
            True,
            NotFoundInKubeError,
            "kubectl create namespace lab",
            2,
        ),
        (409, status("it exists"), False, ConflictError, "it exists", 2),
        (
            422,
            status("no", causes=[{"field": "spec.a", "message": "must be b"}, *[{"field": "x", "message": "y"}] * 4]),
            False,
            InvalidError,
            "spec.a: must be b; x: y; x: y and 2 more",
            2,
        ),
        (400, b"bad", False, InvalidError, "bad", 2),
        (429, b"", False, ThrottledError, "too many requests", 6),
        (500, b"<html>", False, UnreachableError, "HTTP 500: no reason", 6),
        (503, b"etcd is gone", False, UnreachableError, "etcd is gone", 6),
        (418, b"\xff\x00", False, UnreachableError, "HTTP 418", 6),
    ],
)
def test_answers(code: int, data: bytes, ray: bool, kind: type[KubeError], says: str, exits: int) -> None:
    error = explain(code, data, "create RayJob demo", WHERE, ray=ray)
    assert type(error) is kind
    assert says in str(error) and WHERE in str(error) and "\n" not in str(error)
    assert EXIT_CODES[error.reason] == exits
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_nobody_answers() -> None:
    error = unreachable("get pods", WHERE, "https://1.2.3.4", "connection refused")
    assert EXIT_CODES[error.reason] == 6
    assert "https://1.2.3.4 (connection refused)" in str(error)
