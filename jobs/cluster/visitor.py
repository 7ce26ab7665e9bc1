"""A short-lived pod of the platform's image, to reach storage when a run's own pods are gone."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from infra.kube_errors import KubeError, UnreachableError
from jobs.cluster.kube import Kube, Object
from jobs.cluster.manifest import run_labels
from jobs.cluster.platform import Platform
from jobs.cluster.pods import CONTAINER_SECURITY, POD_SECURITY, literal
from jobs.cluster.standing import Phase, Standing
from jobs.cluster.waiting import why
from jobs.output import warn

CONTAINER = "visitor"
#: Seconds that it may live, even if we are killed before we can remove it.
LIFE_S = 1800
#: Seconds that it may take to start: its image may have to be fetched.
START_S = 180.0
LOOK_S = 1.0
#: Seconds after which a person is told what is waited for.
PATIENCE_S = 8.0


def visitor_pod(run: str, platform: Platform, suffix: str) -> Object:
    """The pod: as restricted as a run's, with the same image, account and credentials."""
    container: Object = {
        "name": CONTAINER,
        "image": platform.image,
        "imagePullPolicy": platform.image_pull_policy,
        "command": ["sleep", str(LIFE_S)],
        "env": [{"name": key, "value": literal(value)} for key, value in platform.environment.items()],
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": "/home/highwater"}],
    }
    if platform.credentials_secret:
        container["envFrom"] = [{"secretRef": {"name": platform.credentials_secret}}]
    spec: Object = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": LIFE_S,
        "terminationGracePeriodSeconds": 0,
        "serviceAccountName": platform.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "home", "emptyDir": {}}],
    }
    if platform.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in platform.image_pull_secrets]
    if platform.head_node_selector:
        spec["nodeSelector"] = platform.head_node_selector
    labels = run_labels(run, platform) | {"app.kubernetes.io/component": CONTAINER}
    metadata: Object = {"name": f"{run}-{CONTAINER}-{suffix}", "labels": labels}
    if platform.annotations:
        metadata["annotations"] = platform.annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@contextmanager
def visitor(
    kube: Kube,
    run: str,
    platform: Platform,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """The name of such a pod, running; it is removed at the end, whatever happens."""
    body = visitor_pod(run, platform, secrets.token_hex(3))
    name = body["metadata"]["name"]
    with _terminations_raised():
        try:
            kube.create(body)
            _wait(kube, name, clock, pause)
            yield name
        finally:
            # One that cannot be removed ends by its deadline; the root cause must not be hidden.
            with suppress(KubeError):
                kube.delete("Pod", name)


@contextmanager
def _terminations_raised() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C, so that the pod does not stay behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what signal.signal calls
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(kube: Kube, name: str, clock: Callable[[], float], pause: Callable[[float], None]) -> None:
    began, said = clock(), False
    end = began + START_S
    while True:
        pod = kube.get("Pod", name)
        phase = (pod.get("status") or {}).get("phase")
        if phase == "Running":
            return
        if clock() >= end or phase in ("Failed", "Succeeded"):
            reason = why(Standing(Phase.STARTING, ""), "", [pod], [])
            raise UnreachableError(
                f"pod {name}, through which storage was to be read, did not start within {START_S:.0f} s in "
                f"{kube.where}: {reason}"
            )
        if not said and clock() - began >= PATIENCE_S:
            reason = why(Standing(Phase.STARTING, ""), "", [pod], [])
            warn(f"waiting for pod {name}, through which storage is read: {reason}")
            said = True
        pause(LOOK_S)
