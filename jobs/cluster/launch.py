"""Makes the objects of a run, or finds them made: whoever is killed in between may do it again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infra.kube_errors import ConflictError, ForbiddenError, KubeError, NotFoundInKubeError, UnreachableError
from jobs.cluster.existing import Existing, existing
from jobs.cluster.kube import Kind, Kube, Object
from jobs.cluster.manifest import RUN_LABEL
from jobs.cluster.standing import submission
from jobs.cluster.waiting import CLUSTER_LABEL

#: Seconds that an old RayJob and its pods may take to go: their grace, and a little for the operator.
GONE_S = 150.0
LOOK_S = 1.0


@dataclass
class Launcher:
    """Creates, adopts and replaces. `say` tells a person what takes time or is missing."""

    kube: Kube
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def create(self, objects: Sequence[Object]) -> Existing:
        """Create the RayJob, then what it owns. Another's RayJob of that name is a ConflictError."""
        body = objects[0]
        try:
            job = self.kube.create(body)
        except ConflictError:
            # The server may have filled in what was sent: ours is known by its submission.
            job = self.kube.get("RayJob", body["metadata"]["name"])
            if submission(job) != submission(body):
                raise
        self.own(job, objects[1:])
        return existing(job, self.kube.where)

    def own(self, job: Object, objects: Sequence[Object], *, adopting: bool = False) -> None:
        """Create what belongs to a RayJob; a budget that may not be made is only told.

        What is there stays, but for what an older RayJob of a new run left behind. When `adopting`, all of it stays.
        """
        for body in objects:
            owned = owned_by(job, body)
            try:
                self._create_owned(owned, adopting=adopting)
            except ForbiddenError as error:
                if body["kind"] != "PodDisruptionBudget":
                    raise self._incomplete(job, error) from error
                self.say(f"the run goes on without a disruption budget: {error}")
            except KubeError as error:
                raise self._incomplete(job, error) from error

    def replace(self, there: Existing, objects: Sequence[Object]) -> Existing:
        """Remove a RayJob that has ended, wait until its pods are gone, and create the new one."""
        self.kube.delete("RayJob", there.name, uid=there.uid)
        self._wait_gone(there)
        return self.create(objects)

    def _create_owned(self, body: Object, *, adopting: bool) -> None:
        kind, name = body["kind"], body["metadata"]["name"]
        end = self.clock() + GONE_S
        while True:
            try:
                self.kube.create(body)
            except ConflictError:
                # Is it ours already, or left over from a RayJob that is gone and will be collected?
                try:
                    found = self.kube.get(kind, name)
                except NotFoundInKubeError:
                    continue
                owners = _owners(found)
                # A budget that nobody owns is a chart's or a person's, and does the same.
                if adopting or owners & _owners(body) or (not owners and kind == "PodDisruptionBudget"):
                    return
                if not owners or self.clock() >= end:
                    raise
                self.kube.delete(kind, name, uid=found["metadata"].get("uid"))
                self.pause(LOOK_S)
            else:
                return

    def _wait_gone(self, there: Existing) -> None:
        end, told = self.clock() + GONE_S, False
        while left := self._left(there):
            if not told:
                self.say(f"waiting for the pods of the last start of run {there.name} to be gone")
                told = True
            if self.clock() >= end:
                raise UnreachableError(
                    f"{left} of the last start of run {there.name} is still there after {GONE_S:.0f} s in "
                    f"{self.kube.where}; look with: kubectl -n {self.kube.namespace} get rayjob,raycluster,pod "
                    f"-l {RUN_LABEL}={there.name}, and run this again"
                )
            self.pause(LOOK_S)

    def _left(self, there: Existing) -> str:
        """What is still there of a RayJob that was removed; empty if nothing is."""
        try:
            if self.kube.get("RayJob", there.name)["metadata"].get("uid") == there.uid:
                return f"RayJob {there.name}"
        except NotFoundInKubeError:
            pass
        kinds: list[Kind] = ["RayCluster", "Pod"]
        for kind in kinds:
            for item in self.kube.list(kind, {RUN_LABEL: there.name}):
                # A pod that has ended holds nothing back, and the job of a schedule is not of the cluster.
                over = (item.get("status") or {}).get("phase") in ("Succeeded", "Failed")
                if not over and (kind == "RayCluster" or CLUSTER_LABEL in (item["metadata"].get("labels") or {})):
                    return f"{kind} {item['metadata']['name']}"
        return ""

    def _incomplete(self, job: Object, error: KubeError) -> KubeError:
        name = job["metadata"]["name"]
        return type(error)(
            f"run {name} was created and goes on, but not all that belongs to it: {error}; "
            "run the same command again when that is mended"
        )


def owned_by(job: Object, body: Object) -> Object:
    """The object as the RayJob's: it goes when the RayJob goes. Pure."""
    reference = {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
    }
    return body | {"metadata": body["metadata"] | {"ownerReferences": [reference]}}


def _owners(body: Object) -> set[str]:
    return {str(one.get("uid")) for one in body["metadata"].get("ownerReferences") or []}
