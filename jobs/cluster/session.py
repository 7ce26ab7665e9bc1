"""One namespace of a cluster, and how each of its runs is reached from this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from infra.kube_errors import KubeError, NotFoundInKubeError
from jobs.cluster.door import Door
from jobs.cluster.existing import Existing, existing
from jobs.cluster.kube import Kube
from jobs.cluster.place import Place, default_place, open_here, place_of
from jobs.cluster.platform import CONFIG_MAP, HOW_TO_INSTALL, KEY, Platform, read_platform
from jobs.errors import NoBucketError, NotFoundError, SpecError, StorageError
from jobs.resolve import is_run
from jobs.rundir import RunDir


@dataclass(frozen=True)
class Reached:
    """A run, and the ways to it."""

    name: str
    there: Existing | None
    """Its RayJob, if there is one."""
    place: Place
    run: RunDir | None
    """Its directory, if storage can be read from here."""
    why_not: str
    """Why it cannot, else empty."""
    door: Door

    @property
    def uri(self) -> str:
        """Where it is in storage."""
        return self.place.uri(self.name)


@dataclass
class Session:
    """One namespace; what is read once is kept."""

    kube: Kube
    through_pod: bool = False
    """Whether storage is to be read through a pod even if it could be read from here."""
    words: str = "--cluster"
    """The options that name this namespace, for commands in messages."""
    listens: Callable[[str], bool] | None = None
    _platform: Platform | None = field(default=None, init=False)

    def platform(self) -> Platform:
        """The namespace's settings; SpecError with how to install them if there are none."""
        if self._platform is None:
            try:
                found = self.kube.get("ConfigMap", CONFIG_MAP)
            except NotFoundInKubeError as error:
                raise SpecError(
                    f"there is no ConfigMap {CONFIG_MAP} in {self.kube.where}: {HOW_TO_INSTALL} {self.kube.namespace}"
                ) from error
            text = (found.get("data") or {}).get(KEY)
            where = f"ConfigMap {CONFIG_MAP} in {self.kube.where}"
            if text is None:
                raise SpecError(f"{where} has no {KEY}: {HOW_TO_INSTALL} {self.kube.namespace}")
            self._platform = read_platform(text, where)
        return self._platform

    def platform_if_any(self) -> Platform | None:
        """The namespace's settings, or None where there are none or they may not be read."""
        try:
            return self.platform()
        except (SpecError, KubeError):
            return None

    def find(self, name: str) -> Existing | None:
        """The run's RayJob, if there is one."""
        try:
            return existing(self.kube.get("RayJob", name), self.kube.where)
        except NotFoundInKubeError:
            return None

    def reach(self, name: str, *, storage: str | None = None, endpoint: str | None = None) -> Reached:
        """A run by its name; `storage` is looked in if its RayJob is gone."""
        there = self.find(name)
        if there is not None:
            place = place_of(there.spec, self.platform_if_any())
            place = replace(place, client_endpoint=endpoint) if endpoint else place
            if storage and storage.rstrip("/") != place.storage.rstrip("/"):
                raise SpecError(f"run {name} is kept in {place.storage}; leave --storage out")
        else:
            place = default_place(self.platform(), storage, endpoint)
        return self.reach_at(name, there, place)

    def reach_at(self, name: str, there: Existing | None, place: Place) -> Reached:
        """A run whose place is known: storage is tried once, and soon given up."""
        run, why_not = None, "--through-pod"
        if not self.through_pod:
            try:
                run, why_not = open_here(place, name, listens=self.listens), ""
            except NoBucketError:
                raise
            except StorageError as error:
                why_not = error.message
        return Reached(name, there, place, run, why_not, Door(self.kube, name, place, self.platform_if_any()))

    def nothing_there(self, reached: Reached) -> NotFoundError:
        """The error of a run that has no RayJob, and perhaps no directory."""
        if reached.run is not None and is_run(reached.run):
            return NotFoundError(
                f"run {reached.name!r} has no RayJob in {self.kube.where} any more; it is kept in {reached.uri}: "
                f"see highwater status {reached.name} {self.words}"
            )
        return NotFoundError(
            f"there is no run {reached.name!r}: no RayJob in {self.kube.where}, and nothing at {reached.uri}; "
            f"see highwater status {self.words}"
        )
