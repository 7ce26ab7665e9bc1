"""Whatever KubeRay writes, a RayJob stands somewhere; and why one waits is told from pods and events."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from jobs.cluster.standing import CANCELLED, DEPLOYMENT, ENDED, QUEUE_LABEL, REASONS, Phase, exit_code, standing
from jobs.cluster.waiting import why
from jobs.errors import Reason


def job(deployment: str = "", status: str = "", **more: Any) -> dict[str, Any]:
    told = {"jobDeploymentStatus": deployment, "jobStatus": status} | more.pop("told", {})
    return {"metadata": more.pop("metadata", {}), "spec": more, "status": told}


@pytest.mark.parametrize(
    ("rayjob", "phase", "reason"),
    [
        ({}, Phase.STARTING, None),
        (job(), Phase.STARTING, None),
        (job("Initializing"), Phase.STARTING, None),
        (job("Running", "PENDING"), Phase.STARTING, None),
        (job("Running", ""), Phase.STARTING, None),
        (job("Running", "RUNNING"), Phase.RUNNING, None),
        (job("Retrying", "FAILED"), Phase.RETRYING, None),
        (job("Complete", "SUCCEEDED"), Phase.SUCCEEDED, Reason.DONE),
        (job("Complete", "STOPPED"), Phase.STOPPED, Reason.STOPPED),
        (job("Complete", "EXOTIC"), Phase.UNKNOWN, Reason.INTERNAL),
        (
            job("Failed", "FAILED", told={"message": "failed with exit code 4, last"}),
            Phase.FAILED,
            Reason.OUT_OF_MEMORY,
        ),
        (job("Failed", "FAILED", told={"message": "exit code 99"}), Phase.FAILED, Reason.INTERNAL),
        (job("Failed", "", told={"reason": "DeadlineExceeded"}), Phase.FAILED, Reason.STOPPED),
        (job("Failed", "", told={"reason": "Unheard", "message": 7}), Phase.FAILED, Reason.INTERNAL),
        (job("ValidationFailed", told={"reason": "ValidationFailed"}), Phase.FAILED, Reason.BAD_SPEC),
        (job("Suspended", suspend=True), Phase.QUEUED, None),
        (job("", suspend=True), Phase.QUEUED, None),
        (job("Running", "RUNNING", suspend=True), Phase.SUSPENDING, None),
        (job("Suspending", "RUNNING", suspend=True), Phase.SUSPENDING, None),
        (job("Suspended", suspend=False), Phase.STARTING, None),
        (
            job("Suspended", suspend=True, metadata={"annotations": {CANCELLED: "now"}}),
            Phase.STOPPED,
            Reason.STOPPED,
        ),
        (job("Running", "RUNNING", metadata={"deletionTimestamp": "now"}), Phase.STOPPED, Reason.STOPPED),
        (job("Complete", "SUCCEEDED", metadata={"deletionTimestamp": "now"}), Phase.SUCCEEDED, Reason.DONE),
        (job("Brandnew", "RUNNING"), Phase.UNKNOWN, None),
        ({"status": "nonsense", "spec": None, "metadata": []}, Phase.STARTING, None),
    ],
)
def test_phases(rayjob: dict[str, Any], phase: Phase, reason: Reason | None) -> None:
    at = standing(rayjob)
    assert (at.phase, at.reason) == (phase, reason)
    assert at.message and "\n" not in at.message
    assert at.ended == (reason is not None)


def test_every_status_stands_somewhere() -> None:
    statuses = ["", "PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED", "?"]
    for deployment, status, reason, suspend in product(
        [*DEPLOYMENT, "Complete", "?"], statuses, [*REASONS, "", "AppFailed", "?"], [True, False]
    ):
        at = standing(job(deployment, status, told={"reason": reason}, suspend=suspend))
        assert at.message
        assert isinstance(exit_code(at), int)
        assert at.phase not in ENDED or at.reason is not None


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


def event(about: str, kind: str, reason: str, message: str, stamp: str = "1") -> dict[str, Any]:
    return {
        "involvedObject": {"name": about, "kind": kind},
        "reason": reason,
        "message": message,
        "lastTimestamp": stamp,
    }


@pytest.mark.parametrize(
    ("pods", "events", "says"),
    [
        ([], [], "not made yet"),
        ([pod(), pod()], [], "0 of 2 pods are ready"),
        (
            [pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: 1 Insufficient cpu"}])],
            [],
            "pod p finds no node: 0/1 nodes: 1 Insufficient cpu",
        ),
        (
            [
                pod(
                    containerStatuses=[
                        {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such\nimage"}}}
                    ]
                )
            ],
            [],
            "cannot get its image: no such image",
        ),
        (
            [pod(containerStatuses=[{"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "s"}}}])],
            [],
            "does not start (CreateContainerConfigError): s",
        ),
        (
            [],
            [
                event("r-x", "RayCluster", "FailedToCreatePod", "exceeded quota", "2"),
                event("other", "RayJob", "Pending", ""),
            ],
            "pods cannot be made: exceeded quota",
        ),
    ],
)
def test_why_it_waits(pods: list[Any], events: list[Any], says: str) -> None:
    at = standing(job("Initializing", told={"rayClusterName": "r-x"}))
    assert says in why(at, "r", pods, events)


def test_a_queue_says_what_it_lacks() -> None:
    at = standing(job("Suspended", suspend=True, metadata={"labels": {QUEUE_LABEL: "team"}}))
    events = [
        event("rayjob-r-1a2b", "Workload", "Pending", "old", "1"),
        event("rayjob-r-1a2b", "Workload", "Pending", "insufficient unused quota for cpu", "2"),
        event("rayjob-other-1", "Workload", "Pending", "not ours", "3"),
    ]
    assert why(at, "r", [], events) == "it waits for queue team: insufficient unused quota for cpu"
