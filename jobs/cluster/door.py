"""Reaches a run's directory through a pod: `highwater` there, its words here. For storage that only pods can see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from infra.kube_errors import UnreachableError
from jobs.cluster.kube import Kube, Object
from jobs.cluster.manifest import RUN_LABEL
from jobs.cluster.place import Place
from jobs.cluster.platform import Platform
from jobs.cluster.visitor import CONTAINER, visitor
from jobs.errors import HighwaterError, NotFoundError, Reason, StorageError
from jobs.resolve import REFUSED
from jobs.submit import reason_of

HEAD = "ray-head"
NODE_TYPE = "ray.io/node-type"
#: Bytes of a command's complaint that are kept.
COMPLAINT_BYTES = 64 * 1024
#: How the command begins the sentence of an error.
MARK = "highwater: "


@dataclass
class Door:
    """The way to one run. `platform` is needed where no pod of the run is left, and one is made for the visit."""

    kube: Kube
    name: str
    place: Place
    platform: Platform | None = None
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    _guest: str = field(default="", init=False)

    def head(self) -> str | None:
        """The name of the run's head pod, if it is ready."""
        pods = self.kube.list("Pod", {RUN_LABEL: self.name, NODE_TYPE: "head"})
        ready = [pod for pod in pods if _is_ready(pod)]
        newest = max(ready, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)
        return newest["metadata"]["name"] if newest else None

    def command(self, verb: str, *options: str) -> list[str]:
        """The command that a pod runs for a verb over this run."""
        endpoint = ["--endpoint", self.place.endpoint] if self.place.endpoint else []
        return ["highwater", verb, self.place.uri(self.name), *endpoint, *options]

    @contextmanager
    def open(self) -> Iterator[Door]:
        """Keep one pod for several commands; without a head one is made, and removed at the end."""
        if self._guest or self.head() is not None:
            yield self
            return
        if self.platform is None:
            raise UnreachableError(f"no pod of run {self.name} is left in {self.kube.where}, and none can be made")
        with visitor(self.kube, self.name, self.platform, clock=self.clock, pause=self.pause) as guest:
            self._guest = guest
            try:
                yield self
            finally:
                self._guest = ""

    def stream(
        self, verb: str, *options: str, out: Callable[[bytes], None], stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Run a verb in the pod; its output goes to `out` as it comes. Its own error is raised as ours."""
        complaint = bytearray()
        pod, container = (self._guest, CONTAINER) if self._guest else (self.head(), HEAD)
        if not pod:
            raise UnreachableError(f"no pod of run {self.name} is ready in {self.kube.where}")

        def err(data: bytes) -> None:
            complaint.extend(data)
            del complaint[:-COMPLAINT_BYTES]

        command = self.command(verb, *options)
        code = self.kube.run_in(pod, command, container=container, out=out, err=err, stop=stop)
        if code and not stop():
            raise told(code, complaint.decode("utf-8", "replace"), pod)

    def capture(self, verb: str, *options: str) -> bytes:
        """All that a verb prints in the pod; one is made if there is none."""
        data = bytearray()
        with self.open():
            self.stream(verb, *options, out=data.extend)
        return bytes(data)


def told(code: int, complaint: str, pod: str) -> HighwaterError:
    """The error that a command in a pod ended with. Pure."""
    lines = [line for line in complaint.splitlines() if line.startswith(MARK)]
    if not lines:
        last = next((line for line in reversed(complaint.splitlines()) if line.strip()), "no word")
        return HighwaterError(f"the command in pod {pod} ended with exit code {code}: {last[:300]}", reason_of(code))
    sentence = lines[-1].removeprefix(MARK)
    if "has no option" in sentence or sentence.startswith("there is no verb"):
        return HighwaterError(
            f"pod {pod} has another version of highwater than this command ({sentence}); "
            "install the version of the platform's image here, or give this machine access to the storage",
            Reason.MISSING_EXTRA,
        )
    if sentence.startswith("there is no run"):
        return NotFoundError(sentence)
    reason = reason_of(code)
    if REFUSED in sentence:
        return HighwaterError(sentence, reason)
    # Bad input, data and storage share a code; through a pod nothing but storage is read.
    return StorageError(sentence) if reason is Reason.BAD_SPEC else HighwaterError(sentence, reason)


def _is_ready(pod: Object) -> bool:
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") != "Running":
        return False
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or [])
