"""One namespace with the platform installed, for all tests of a session; loudly skipped without a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.cluster.stage import SHARED, Place, installed, own_place, why_not
from tests.cluster.tools import ROOT, Cluster, wait_for


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_not()
    if reason:
        print(f"\n*** tests/cluster {reason} ***", file=sys.stderr)
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def place() -> Place:
    """A bucket of its own in the cluster's S3."""
    return own_place()


@pytest.fixture(scope="session")
def cluster(place: Place) -> Iterator[Cluster]:
    """The platform, installed."""
    with installed(place) as space:
        yield space


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Iterator[None]:
    """The platform's shared Ray cluster, with two workers that are always there; two cores cannot bear it for long."""
    on = "sharedCluster.enabled=true,sharedCluster.workers.min=2,sharedCluster.workers.max=2"
    small = "sharedCluster.head.cpu=0.2,sharedCluster.resources.cpusPerWorker=0.2,sharedCluster.resources.memoryGib=3"
    chart = str(ROOT / "charts/highwater")
    cluster.helm("upgrade", "highwater", chart, "--reuse-values", "--set", on, "--set", small)

    def ready() -> bool:
        status = cluster.get("raycluster", SHARED).get("status", {})
        return status.get("readyWorkerReplicas", 0) == 2 and status.get("state") == "ready"

    wait_for("the shared cluster", ready, 180)
    yield
    cluster.helm("upgrade", "highwater", chart, "--reuse-values", "--set", "sharedCluster.enabled=false")
