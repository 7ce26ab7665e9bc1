"""Where a cluster's run is in storage, and whether that can be read from this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from infra.storage import is_local, open_store
from jobs.cluster.manifest import on_cluster
from jobs.cluster.platform import Platform
from jobs.errors import SpecError, StorageError
from jobs.rundir import RunDir
from jobs.spec import JobSpec

#: Seconds to find out whether anything listens at an S3 server's address.
LISTENS_S = 2.0


@dataclass(frozen=True)
class Place:
    """A storage under its two addresses."""

    storage: str
    endpoint: str | None
    """As pods see it; None is AWS."""
    client_endpoint: str | None
    """As this machine sees it."""

    def uri(self, name: str) -> str:
        """Where a run is, as a person would write it."""
        return f"{self.storage.rstrip('/')}/{name}"


def place_of(spec: JobSpec, platform: Platform | None) -> Place:
    """Where a spec's runs are; SpecError if it names a folder and the platform no storage."""
    if platform is not None:
        spec = on_cluster(spec, platform)
    same = platform is not None and spec.storage_endpoint in (None, platform.storage_endpoint)
    client = platform.client_endpoint if platform is not None and same else None
    return Place(spec.storage, spec.storage_endpoint, client or spec.storage_endpoint)


def default_place(platform: Platform, storage: str | None = None, endpoint: str | None = None) -> Place:
    """Where the platform's runs are, for a run whose RayJob is gone; SpecError if nothing says so."""
    chosen = storage or platform.storage
    if chosen is None:
        raise SpecError(
            "the platform names no storage, and the run's RayJob is gone; give --storage s3://BUCKET/PREFIX"
        )
    # An endpoint that a person gives is what this machine sees; pods have the platform's.
    return Place(chosen, platform.storage_endpoint, endpoint or platform.client_endpoint or platform.storage_endpoint)


def open_here(place: Place, name: str, *, listens: Callable[[str], bool] | None = None) -> RunDir:
    """The run directory over storage as this machine sees it; StorageError, soon, if it cannot be read from here."""
    if is_local(place.storage):
        raise StorageError(f"{place.storage} is a folder of the pods")
    address = place.client_endpoint
    if address and not (listens or _listens)(address):
        raise StorageError(f"nothing answers at {address} from this machine")
    run = RunDir(open_store(place.storage, address), name)
    run.read("spec.json")
    return run


def _listens(address: str) -> bool:
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), LISTENS_S).close()
    except OSError:
        return False
    return True
