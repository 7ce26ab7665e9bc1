"""Why a run on a cluster does not run yet, from its pods, its Ray cluster and the events about them."""

from __future__ import annotations

from collections.abc import Sequence

from infra.kube_errors import ForbiddenError
from jobs.cluster.kube import Kube, Object
from jobs.cluster.manifest import RUN_LABEL
from jobs.cluster.standing import Phase, Standing

#: Phases in which a person wants to know what is missing.
WAITS = (Phase.QUEUED, Phase.STARTING, Phase.RETRYING)
#: Label by which the operator knows the pods of a Ray cluster.
CLUSTER_LABEL = "ray.io/cluster"

#: What a container waits for when nothing is wrong.
ORDINARY = {"", "ContainerCreating", "PodInitializing"}
IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
#: Reasons of events that say why an object makes no progress.
TELLING = {"FailedCreate", "FailedToCreatePod", "FailedToCreateHeadPod", "FailedToCreateWorkerPod", "Pending"}
#: Reasons of events about a pod that has a node and does not start on it.
STUCK = {"FailedCreatePodSandBox", "FailedMount", "FailedAttachVolume"}
LONGEST = 300


def ask(kube: Kube, standing: Standing, run: str) -> str:
    """One sentence on what the run waits for."""
    pods = [pod for pod in kube.list("Pod", {RUN_LABEL: run}) if _counts(pod["metadata"])]
    try:
        events = kube.list("Event")
    except ForbiddenError:
        events = []  # Pods tell most of it.
    return why(standing, run, pods, events)


def _counts(metadata: Object) -> bool:
    """Whether a pod is one of a Ray cluster, and stays."""
    return CLUSTER_LABEL in (metadata.get("labels") or {}) and not metadata.get("deletionTimestamp")


def why(standing: Standing, run: str, pods: Sequence[Object], events: Sequence[Object]) -> str:
    """One sentence on what the run waits for. `events` are of the namespace. Pure."""
    own = [event for event in events if _about(event, run, standing.cluster)]
    if standing.phase is Phase.QUEUED:
        said = _last(own, {"Pending", "QuotaReserved", "Preempted", "Evicted", "EvictedDueToPreempted"})
        return standing.message + (f": {said}" if said else "")
    reasons = [reason for pod in pods if (reason := _of_pod(pod))]
    if reasons:
        more = f" ({len(reasons)} pods wait)" if len(reasons) > 1 else ""
        return reasons[0] + more
    named = {str((pod.get("metadata") or {}).get("name")) for pod in pods}
    if said := _last([event for event in events if _subject(event).get("name") in named], STUCK):
        return f"a pod does not start: {said}"
    if said := _last(own, TELLING):
        return f"pods cannot be made: {said}"
    if not pods:
        return "its pods are not made yet"
    ready = sum(1 for pod in pods if _is_ready(pod))
    if ready == len(pods):
        return f"its pods are ready ({ready}), and its driver is being started"
    return f"{ready} of {len(pods)} pods are ready"


def _subject(event: Object) -> Object:
    about = event.get("involvedObject") or event.get("regarding") or {}
    return about if isinstance(about, dict) else {}


def _about(event: Object, run: str, cluster: str) -> bool:
    about = _subject(event)
    name, kind = str(about.get("name", "")), about.get("kind")
    if kind == "Workload":
        return name.startswith(f"rayjob-{run}-")
    return (kind == "RayJob" and name == run) or (bool(cluster) and name == cluster)


def _last(events: Sequence[Object], reasons: set[str]) -> str:
    told = [event for event in events if event.get("reason") in reasons and event.get("message")]
    newest = max(told, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), default=None)
    return _short(str(newest["message"])) if newest else ""


def _of_pod(pod: Object) -> str:
    name = (pod.get("metadata") or {}).get("name", "?")
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"pod {name} finds no node: {_short(str(condition.get('message') or 'no reason given'))}"
    for container in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason in IMAGE:
            return f"pod {name} cannot get its image: {_short(str(waiting.get('message') or reason))}"
        if reason not in ORDINARY:
            return f"pod {name} does not start ({reason}): {_short(str(waiting.get('message') or ''))}".rstrip(": ")
    return ""


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
