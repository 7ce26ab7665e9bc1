"""A Kubernetes in memory: one namespace, failures on demand, and a clock that only sleeping moves."""

from __future__ import annotations

import builtins
import copy
import io
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from infra.kube import holds
from infra.kube_errors import ConflictError, KubeError, NotFoundInKubeError
from jobs import cli
from jobs.cluster.existing import seconds
from jobs.cluster.kube import Kind, Object
from jobs.cluster.manifest import Request, objects, on_cluster
from jobs.cluster.platform import CONFIG_MAP, KEY, Platform
from jobs.spec import JobSpec

BORN = "2026-11-23T00:00:00Z"


class FakeKube:
    """A `Kube`. What begins with `TEST:` in its docstring is for tests alone."""

    namespace = "lab"
    where = "namespace lab of context fake"

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.calls: list[str] = []
        self.failures: list[tuple[str, KubeError]] = []
        """TEST: the next call that begins so raises, once for each entry."""
        self.now = seconds(BORN)
        self.at: list[tuple[float, Callable[[], object]]] = []
        """TEST: what happens at a time, in seconds after the beginning."""
        self.command: Callable[[builtins.list[str]], tuple[int, bytes, bytes]] = as_here
        """TEST: what a command in a pod does: exit code, output, complaints."""
        self._uids = 0

    # Kube

    def get(self, kind: Kind, name: str) -> Object:
        self._called(f"get {kind} {name}")
        found = self.objects.get((kind, name))
        if found is None:
            raise NotFoundInKubeError(f"cannot get {kind} {name} in {self.where}: there is none")
        return copy.deepcopy(found)

    def list(self, kind: Kind, labels: Mapping[str, str] | None = None) -> builtins.list[Object]:
        self._called(f"list {kind}")
        wanted = (labels or {}).items()
        every = [body for (one, _), body in sorted(self.objects.items()) if one == kind]
        return [copy.deepcopy(b) for b in every if wanted <= (b["metadata"].get("labels") or {}).items()]

    def create(self, body: Object) -> Object:
        kind, name = body["kind"], body["metadata"]["name"]
        self._called(f"create {kind} {name}")
        if (found := self.objects.get((kind, name))) is not None:
            if holds(found, body):
                return copy.deepcopy(found)
            raise ConflictError(f"cannot create {kind} {name} in {self.where}: it exists already")
        self._uids += 1
        made: Object = copy.deepcopy(body)
        made["metadata"] |= {"uid": f"uid-{self._uids}", "creationTimestamp": BORN, "namespace": self.namespace}
        self.objects[kind, name] = made
        return copy.deepcopy(made)

    def patch(self, kind: Kind, name: str, changes: Object) -> Object:
        self._called(f"patch {kind} {name}")
        self.get(kind, name)
        self.objects[kind, name] = merged(self.objects[kind, name], changes)
        return copy.deepcopy(self.objects[kind, name])

    def delete(self, kind: Kind, name: str, *, uid: str | None = None) -> None:
        self._called(f"delete {kind} {name}")
        found = self.objects.get((kind, name))
        if found is None or (uid and found["metadata"]["uid"] != uid):
            return
        del self.objects[kind, name]
        gone = found["metadata"]["uid"]
        for key, body in list_of(self.objects):
            if any(one["uid"] == gone for one in body["metadata"].get("ownerReferences") or []):
                del self.objects[key]

    def run_in(
        self,
        pod: str,
        command: builtins.list[str],
        *,
        container: str,
        out: Callable[[bytes], None],
        err: Callable[[bytes], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> int:
        self._called(f"run {pod} {' '.join(command)}")
        code, printed, complaint = self.command(command)
        # In pieces, as a connection has them.
        for start in range(0, len(printed), 1000):
            out(printed[start : start + 1000])
        if err and complaint:
            err(complaint)
        return code

    # Tests

    def _called(self, call: str) -> None:
        self.calls.append(call)
        for index, (begin, error) in enumerate(self.failures):
            if call.startswith(begin):
                del self.failures[index]
                raise error

    def clock(self) -> float:
        """TEST: seconds since 1970."""
        return self.now

    def sleep(self, amount: float) -> None:
        """TEST: time passes, and what was to happen happens."""
        self.now += amount
        for due, act in [one for one in self.at if seconds(BORN) + one[0] <= self.now]:
            self.at.remove((due, act))
            act()

    def platform(self, **changes: Any) -> Platform:
        """TEST: put the platform's settings into the namespace."""
        values = {"image": "registry/worker:1", "storage": "s3://bucket/runs", "storageEndpoint": "http://inside:9000"}
        platform = Platform.model_validate(values | changes)
        text = platform.model_dump_json(by_alias=True)
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG_MAP}, "data": {KEY: text}}
        self.objects["ConfigMap", CONFIG_MAP] = body | {"metadata": {"name": CONFIG_MAP, "uid": "p"}}
        return platform

    def run(self, spec: JobSpec, name: str, platform: Platform, *, submission: str = "first", **status: str) -> Object:
        """TEST: a run that somebody started, with this status of its RayJob."""
        sent = objects(on_cluster(spec, platform), Request(name, self.namespace, submission), platform)
        self.create(sent[0])
        self.status(name, **status)
        return self.objects["RayJob", name]

    def status(self, name: str, **status: str) -> None:
        """TEST: what KubeRay says of the RayJob now."""
        self.objects["RayJob", name]["status"] = status

    def pod(self, run: str, kind: str = "head", *, ready: bool = True, **status: Any) -> None:
        """TEST: a pod of a run's Ray cluster."""
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        labels = {"highwater.io/run": run, "ray.io/node-type": kind, "ray.io/cluster": f"{run}-x"}
        self.objects["Pod", f"{run}-{kind}"] = {
            "kind": "Pod",
            "metadata": {"name": f"{run}-{kind}", "uid": f"{run}-{kind}", "labels": labels},
            "status": {"phase": "Running", "conditions": conditions} | status,
        }


def as_here(command: builtins.list[str]) -> tuple[int, bytes, bytes]:
    """A pod whose `highwater` is ours, in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.TextIOWrapper(io.BytesIO(), write_through=True)
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(command[1:])
        sys.stdout.flush()
    return code, out.buffer.getvalue(), err.buffer.getvalue()  # type: ignore[attr-defined]


def merged(body: Any, changes: Any) -> Any:
    """A JSON merge patch."""
    if not isinstance(changes, dict):
        return changes
    base = dict(body) if isinstance(body, dict) else {}
    for key, value in changes.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = merged(base.get(key), value)
    return base


def list_of(objects_: dict[tuple[str, str], Object]) -> builtins.list[tuple[tuple[str, str], Object]]:
    """A copy to change the original by."""
    return [*objects_.items()]
