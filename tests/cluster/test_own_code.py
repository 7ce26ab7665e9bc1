"""A model of the user's own, whose package lies on the machine that submits: it travels with the run."""

from __future__ import annotations

import pytest

from tests.cluster.stage import Place
from tests.cluster.tools import ROOT, Cluster, highwater


@pytest.mark.full
def test_a_package_travels_with_the_run(cluster: Cluster, place: Place) -> None:
    spec = str(ROOT / "tests/outside/spirals.yaml")
    small = ["--set", "resources.cpus_per_worker=0.2", "--set", "resources.memory_gib=3", "--set", "batch=32"]
    words = ["--name", "spirals", "--cluster", "--namespace", cluster.namespace]
    done = highwater("run", spec, *small, *words)
    assert "trained to the last step" in done.stdout or "best" in done.stdout
    result = place.run_dir("spirals").result()
    assert result is not None
    assert result.reason == "done"
    owner = cluster.get("configmap", "spirals-code")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("RayJob", "spirals")
