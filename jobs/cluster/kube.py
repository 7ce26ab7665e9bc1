"""What Highwater needs of Kubernetes, as a Protocol. `infra.kube` implements it; unit tests have a fake."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

Object = dict[str, Any]
#: What is read or written, all in one namespace.
Kind = Literal["RayJob", "RayCluster", "ConfigMap", "PodDisruptionBudget", "Pod", "Event"]


class Kube(Protocol):
    """One namespace of one cluster, with the rights of whoever runs the command.

    All methods raise a `KubeError` subclass (`infra.kube_errors`) that tells apart: forbidden, not found, conflict,
    invalid, throttled, unreachable. What may be repeated safely is repeated, a bounded number of times.
    """

    @property
    def namespace(self) -> str:
        """The namespace of all that is read and written."""
        ...

    @property
    def where(self) -> str:
        """Context and namespace, as a person would name them in a message."""
        ...

    def get(self, kind: Kind, name: str) -> Object:
        """One object."""
        ...

    def list(self, kind: Kind, labels: Mapping[str, str] | None = None) -> builtins.list[Object]:
        """All objects with these labels, in pages."""
        ...

    def create(self, body: Object) -> Object:
        """The object as the server made it. A lost answer is asked for again, and an equal object adopted."""
        ...

    def patch(self, kind: Kind, name: str, changes: Object) -> Object:
        """Change an object by a JSON merge patch."""
        ...

    def delete(self, kind: Kind, name: str, *, uid: str | None = None) -> None:
        """Ask for the removal of the object, and of what it owns; with `uid` of this very object alone.

        Not waited for. An object that is not there is fine.
        """
        ...

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
        """Run a command in a pod's container; its exit code. `out` gets the bytes as they come; `stop` ends it."""
        ...
