"""A run in Kueue's queue: it waits for its quota, and the command says so."""

from __future__ import annotations

import pytest

from tests.cluster.stage import Place
from tests.cluster.tools import ROOT, SMALL, Cluster, highwater, run


@pytest.mark.full
def test_a_run_waits_for_its_queue_and_then_runs(cluster: Cluster, place: Place) -> None:
    if run("kubectl", "get", "crd", "localqueues.kueue.x-k8s.io", ok=False).returncode:
        pytest.skip("skipped: this cluster has no Kueue (on the testbed: up queue)")
    chart = str(ROOT / "charts/highwater")
    words = [word for change in (*SMALL, "steps=10", "cluster.queue=highwater") for word in ("--set", change)]
    command = ["run", "language", *words, "--cluster", "--namespace", cluster.namespace]
    # A quota that holds no run at first: two workers and a head ask for 0.8 CPUs.
    cluster.helm("upgrade", "highwater", chart, "--reuse-values", "--set", "queue.enabled=true,queue.cpus=0.1")
    try:
        highwater(*command, "--name", "queued", "--detach")
        said = highwater("status", "queued", "--cluster", "--namespace", cluster.namespace).stdout
        assert "queue" in said
        assert not cluster.pods("queued", "worker")
        cluster.helm("upgrade", "highwater", chart, "--reuse-values", "--set", "queue.cpus=4")
        done = highwater(*command, "--name", "queued")
        assert "perplexity" in done.stdout
        assert cluster.job_status("queued") == "SUCCEEDED"
    finally:
        cluster.kubectl("delete", "rayjob", "queued", "--wait=true", "--timeout=60s", ok=False, timeout_s=90)
        cluster.helm("upgrade", "highwater", chart, "--reuse-values", "--set", "queue.enabled=false")
