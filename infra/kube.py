"""Kubernetes behind `jobs.cluster.kube.Kube`, over the `kubernetes` package: its configuration, its connections.

Paths come from a table, so nothing is discovered, and kinds of other groups need no client of their own. What may be
repeated safely is repeated, a bounded number of times; a creation is repeated only after looking for the object.
"""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from infra.kube_config import Settings, load
from infra.kube_errors import (
    ConflictError,
    KubeError,
    NotFoundInKubeError,
    ThrottledError,
    UnreachableError,
    explain,
    unreachable,
)
from infra.kube_exec import Exec

if TYPE_CHECKING:
    from jobs.cluster.kube import Kind, Object

#: Where each kind is: group and version, and its plural.
PATHS: dict[str, tuple[str, str]] = {
    "RayJob": ("/apis/ray.io/v1", "rayjobs"),
    "RayCluster": ("/apis/ray.io/v1", "rayclusters"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
}
CONNECT_S, READ_S = 5.0, 30.0
#: Times that a request is sent at most, and seconds between two of them at most.
TRIES = 4
LONGEST_PAUSE_S = 10.0
PAGE = 500
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"


class KubeApi:
    """One namespace of one cluster. Safe to use from several threads."""

    def __init__(
        self,
        configuration: Settings,
        namespace: str,
        context: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`configuration` is the kubernetes client's; no request is made yet."""
        from kubernetes.client import ApiClient

        self._configuration, self._context, self._sleep = configuration, context, sleep
        self._namespace = namespace
        # Its pool knows certificates and proxies; its own calls differ between versions of the package.
        self._pool = ApiClient(configuration).rest_client.pool_manager

    @property
    def namespace(self) -> str:
        """The namespace of all that is read and written."""
        return self._namespace

    @property
    def where(self) -> str:
        """Context and namespace, as a person would name them."""
        return f"namespace {self._namespace} of {self._context}"

    def get(self, kind: Kind, name: str) -> Object:
        """One object."""
        return self._json("GET", kind, name)

    def list(self, kind: Kind, labels: Mapping[str, str] | None = None) -> builtins.list[Object]:
        """All objects with these labels, in pages."""
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        found: builtins.list[Object] = []
        while True:
            page = self._json("GET", kind, query=query)
            found += page.get("items") or []
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return found
            query["continue"] = following

    def create(self, body: Object) -> Object:
        """The object as the server made it. A lost answer is asked for again, and an equal object adopted."""
        kind, name = body["kind"], body["metadata"]["name"]
        for pause in self._pauses():
            try:
                return self._json("POST", kind, body=body, naming=name, once=True)
            except ConflictError:
                found = self._there(kind, name)
                if found is None or not holds(found, body):
                    raise
                return found
            except (UnreachableError, ThrottledError) as error:
                if (found := self._there(kind, name, error)) is not None:
                    if holds(found, body):
                        return found
                    raise ConflictError(
                        f"cannot create {_named(kind, name)} in {self.where}: another one of that name is there"
                    ) from error
                if pause is None:
                    raise
                self._sleep(pause)
        raise AssertionError("unreachable")

    def patch(self, kind: Kind, name: str, changes: Object) -> Object:
        """Change an object by a JSON merge patch."""
        return self._json("PATCH", kind, name, body=changes)

    def delete(self, kind: Kind, name: str, *, uid: str | None = None) -> None:
        """Ask for the removal of the object and of what it owns. One that is not there, or is another, is fine."""
        options: Object = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self._json("DELETE", kind, name, body=options)
        except NotFoundInKubeError:
            return
        except ConflictError:
            if uid is None:
                raise

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
        """Run a command in a pod's container; its exit code, 130 if `stop` ended it. Never repeated."""
        path = f"{self._path('Pod', pod)}/exec"
        what = f"run {command[0]} in pod {pod}"
        return Exec(self._configuration, path, command, container, what, self.where).run(
            out, err or (lambda _: None), stop
        )

    def _there(self, kind: str, name: str, trouble: KubeError | None = None) -> Object | None:
        """The object, or None; where it cannot be told, the trouble that made us look."""
        try:
            return self._json("GET", kind, name)
        except NotFoundInKubeError:
            return None
        except KubeError as error:
            raise (trouble or error) from error

    def _path(self, kind: str, name: str = "") -> str:
        group, plural = PATHS[kind]
        path = f"{group}/namespaces/{quote(self._namespace, safe='')}/{plural}"
        return f"{path}/{quote(name, safe='')}" if name else path

    def _json(
        self,
        method: str,
        kind: str,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        naming: str = "",
        once: bool = False,
    ) -> Object:
        what = f"{_VERBS[method] if name or body else 'list'} {_named(kind, name or naming)}"
        path = self._path(kind, name) + (f"?{urlencode(query)}" if query else "")
        data = self._send(method, path, what, body, once=once, ray=PATHS[kind][0].startswith("/apis/ray.io"))
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise UnreachableError(f"cannot {what} in {self.where}: {self._configuration.host} is no Kubernetes API")
        return answer

    def _send(
        self, method: str, path: str, what: str, body: Object | None = None, *, once: bool = False, ray: bool = False
    ) -> bytes:
        """The answer's body; `KubeError` if there is none after the tries that are worth it."""
        for pause in [None] if once else self._pauses():
            wait = pause
            try:
                status, data, after = self._request(method, path, what, body)
            except UnreachableError:
                if pause is None:
                    raise
            else:
                if status < 400:
                    return data
                if pause is None or (status < 500 and status != 429):
                    raise explain(status, data, what, self.where, ray=ray)
                wait = pause if after is None else min(after, LONGEST_PAUSE_S)
            self._sleep(wait or 0.0)
        raise AssertionError("unreachable")

    def _pauses(self) -> Iterator[float | None]:
        """Seconds to wait after each try that failed; None after the last."""
        yield from (0.5 * 2**number for number in range(TRIES - 1))
        yield None

    def _request(self, method: str, path: str, what: str, body: Object | None) -> tuple[int, bytes, float | None]:
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        kind = MERGE_PATCH if method == "PATCH" else JSON
        headers = {"Accept": "application/json, */*", "User-Agent": "highwater"}
        headers |= {} if body is None else {"Content-Type": kind}
        # Asked for each time: a token of an exec plugin or of a pod's account is replaced while we run.
        if token := self._configuration.auth_settings().get("BearerToken", {}).get("value"):
            headers["Authorization"] = token
        try:
            answer = self._pool.request(
                method,
                self._configuration.host + path,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=Timeout(connect=CONNECT_S, read=READ_S),
                retries=False,
            )
        except (HTTPError, OSError) as error:
            raise unreachable(what, self.where, self._configuration.host, _cause(error)) from error
        after = str(answer.headers.get("Retry-After", ""))
        return answer.status, answer.data, float(after) if after.isdigit() else None


_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}


def connect(context: str | None = None, namespace: str | None = None) -> KubeApi:
    """The cluster that kubectl would use; the namespace is the one given, else the context's, else `default`."""
    configuration, name, own = load(context)
    return KubeApi(configuration, namespace or own or "default", name)


def holds(found: Any, sent: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether the server's object has everything that was sent; it adds fields of its own. Pure."""
    if isinstance(sent, dict):
        return isinstance(found, dict) and all(key in found and holds(found[key], sent[key]) for key in sent)
    if isinstance(sent, list):
        return (
            isinstance(found, list)
            and len(found) == len(sent)
            and all(holds(one, other) for one, other in zip(found, sent, strict=True))
        )
    return bool(found == sent)


def _named(kind: str, name: str) -> str:
    return f"{kind} {name}" if name else PATHS[kind][1]


def _cause(error: BaseException) -> str:
    """The innermost reason of a urllib3 error, in a few words."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return _cause(inner)
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if "Timeout" in type(error).__name__:
        return "timed out"
    return str(error).rsplit(": ", 1)[-1][:200]
