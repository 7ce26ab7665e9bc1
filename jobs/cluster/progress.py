"""How a watcher sees the run itself: from storage, or, where only pods can read that, through the head pod."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from infra.kube_errors import KubeError
from jobs.cluster.door import Door
from jobs.cluster.existing import Existing
from jobs.cluster.standing import Phase, Standing
from jobs.display import Display, outcome
from jobs.errors import HighwaterError, NotFoundError, Reason, StorageError
from jobs.follow import Follower, interval_s
from jobs.rundir import Result, RunDir
from jobs.state import ELSEWHERE
from jobs.submission import noted, refusal
from jobs.view import View

#: Seconds between two tries to follow a run through its head pod, and lines that are not told twice after one.
AGAIN_S = 4.0
REMEMBERED = 400


class Progress(Protocol):
    """What is known of the run besides its RayJob."""

    def look(self, standing: Standing) -> None:
        """Show what is new; called on every tick, never raises for trouble that may pass.

        HighwaterError if the run was refused for good, whatever its RayJob still does.
        """
        ...

    def final(self) -> Result | None:
        """How the run ended, if it has said so and no new cluster can change that."""
        ...

    def ending(self, standing: Standing, there: Existing) -> Result | None:
        """How the run ended, as its directory says, once its RayJob has; HighwaterError if it was refused."""
        ...

    def close(self) -> None:
        """No more looks."""
        ...


@dataclass
class ThroughStorage:
    """Follows the run directory as `highwater status --watch` does."""

    run: RunDir
    display: Display
    submission: str
    stale: Result | None = None
    clock: Callable[[], float] = time.monotonic
    _follower: Follower = field(init=False)
    _due: float = field(default=float("-inf"), init=False)
    _failing: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._follower = Follower(self.run, None, self.stale)

    def look(self, standing: Standing) -> None:
        """Poll if it is time; storage that fails is told once, and asked again. Raises what the driver refused."""
        if self.clock() < self._due:
            return
        self._due = self.clock() + interval_s(self.run.store.flush_s)
        self._poll()
        if self._follower.view.phase == "waiting" and (error := refused(self.run, self.submission)) is not None:
            raise error
        result = self._follower.view.result
        if result is not None and ELSEWHERE[result.reason] and standing.phase in (Phase.RETRYING, Phase.STARTING):
            # That driver's last word, but not the run's: a new cluster goes on.
            self._follower = Follower(self.run, None, result)
            self._poll(show=False)

    def _poll(self, *, show: bool = True) -> None:
        try:
            updates = self._follower.poll()
        except StorageError as error:
            if not self._failing:
                self.display.say(f"progress cannot be read at the moment: {error}")
            self._failing = True
            return
        self._failing = False
        if show:
            self.display.show(self._follower.view, updates)

    def final(self) -> Result | None:
        """The result that the follower found."""
        result = self._follower.view.result
        return None if result is None or ELSEWHERE[result.reason] else result

    def ending(self, standing: Standing, there: Existing) -> Result | None:
        """The result of this submission, or the older one of a run that had nothing left to do."""
        self._poll()
        result = self._ending(standing, there)
        if result is not None and self._follower.view.result != result:
            self.display.say(outcome(View(result.name, "", result=result)))
        return result

    def _ending(self, standing: Standing, there: Existing) -> Result | None:
        newest = noted(self.run)
        result = self.run.result()
        if error := refused(self.run, self.submission):
            raise error
        ours = newest is not None and newest.id == there.submission
        if newest is not None and ours and result is not None and result.finished_at >= newest.began:
            return result
        return result if standing.phase is Phase.SUCCEEDED and result and result.reason is Reason.DONE else None

    def close(self) -> None:
        """Nothing to leave: the display is its owner's."""


def refused(run: RunDir, submission: str) -> HighwaterError | None:
    """Why the driver did not let a submission become a run: no retry changes that."""
    try:
        return refusal(run, submission)
    except StorageError:
        return None  # The next look asks again.


@dataclass
class ThroughPod:
    """Passes on the lines that `highwater status --watch` prints in the head pod, as often as it has to be begun."""

    door: Door
    display: Display
    clock: Callable[[], float] = time.monotonic
    _lines: queue.Queue[str] = field(default_factory=queue.Queue, init=False)
    _told: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED), init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _due: float = field(default=float("-inf"), init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _complaint: str = field(default="", init=False)

    def look(self, standing: Standing) -> None:
        """Tell what came, and follow again if the last time has ended and the driver is at work."""
        self._tell()
        if standing.phase is not Phase.RUNNING or (self._thread and self._thread.is_alive()):
            return
        if self.clock() >= self._due:
            self._due = self.clock() + AGAIN_S
            self._thread = threading.Thread(target=self._follow, name="through-the-pod", daemon=True)
            self._thread.start()

    def _tell(self) -> None:
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return
            # Each time it is begun, the last lines come again.
            if line not in self._told and not line.startswith("... "):
                self._told.append(line)
                self.display.say(line)

    def _follow(self) -> None:
        rest = b""

        def out(data: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._lines.put(line.decode("utf-8", "replace").rstrip("\r"))

        try:
            self.door.stream("status", "--watch", out=out, stop=self._ended.is_set)
        except NotFoundError:
            pass  # The driver has not begun the run's directory yet.
        except (HighwaterError, KubeError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._lines.put(f"progress cannot be read at the moment: {error}")

    def final(self) -> Result | None:
        """Never known before the RayJob has ended: a look costs a command in a pod."""
        return None

    def ending(self, standing: Standing, there: Existing) -> Result | None:
        """The result, if it is of this RayJob's time; its pods are kept a while for that."""
        if self._thread:
            self._thread.join(AGAIN_S)
        self._tell()
        result = read_status(self.door)[1]
        if result is None:
            return None
        older = result.finished_at < there.created
        if older and (standing.phase is not Phase.SUCCEEDED or result.reason is not Reason.DONE):
            return None
        text = outcome(View(result.name, "", result=result))
        if not any(text in line for line in self._told):
            self.display.say(text)
        return result

    def close(self) -> None:
        """End the following; what was printed until then is told."""
        self._ended.set()
        if self._thread:
            self._thread.join(2.0)
        self._tell()


def read_status(door: Door) -> tuple[dict[str, Any], Result | None]:
    """What `highwater status --json` says in a pod, and the result in it."""
    try:
        document = json.loads(door.capture("status", "--json"))
    except ValueError as error:
        raise StorageError(f"the status of run {door.name}, read through a pod, is not JSON ({error})") from error
    result = document.get("result")
    return document, Result.model_validate(result) if result else None
