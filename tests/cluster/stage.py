"""A namespace with the platform installed and a bucket, for tests and benchmarks."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import boto3

from infra.storage import open_store
from jobs.rundir import RunDir
from tests.cluster.tools import ROOT, Cluster, run

#: The Ray cluster of the platform that takes `ray job submit`.
SHARED = "highwater-shared"
CONTEXT, IMAGE = "HIGHWATER_TEST_CONTEXT", "HIGHWATER_TEST_IMAGE"
#: The testbed's own server; another cluster names its in the environment.
S3 = os.environ.get("HIGHWATER_TEST_S3", "http://s3.testbed.svc.cluster.local:7070")
KEYS = {
    "AWS_ACCESS_KEY_ID": os.environ.get("HIGHWATER_TEST_S3_KEY", "testbed"),
    "AWS_SECRET_ACCESS_KEY": os.environ.get("HIGHWATER_TEST_S3_SECRET", "testbed-secret"),
    "AWS_REGION": "us-east-1",
}


def why_not() -> str | None:
    """Why no cluster may be used; None if one may."""
    wanted = os.environ.get(CONTEXT)
    if not wanted:
        return f"skipped: no cluster ({CONTEXT} is not set)"
    if not shutil.which("kubectl") or not shutil.which("helm"):
        return "skipped: no cluster (kubectl and helm are not both on PATH)"
    current = run("kubectl", "config", "current-context", ok=False).stdout.strip()
    if current != wanted:
        return f"skipped: no cluster ({CONTEXT} is {wanted!r}, and kubectl's context is {current!r})"
    return None if os.environ.get(IMAGE) else f"skipped: no worker image ({IMAGE} is not set)"


@dataclass
class Place:
    """Where runs of the tests live, seen from the pods and from here."""

    bucket: str
    endpoint: str
    client_endpoint: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/runs"

    def run_dir(self, name: str) -> RunDir:
        return RunDir(open_store(self.uri, self.client_endpoint), name)


def own_place() -> Place:
    """A bucket of its own in the cluster's S3."""
    for name, value in KEYS.items():
        os.environ[name] = value
    host, _, port = S3.removeprefix("http://").partition(":")
    service, namespace, *_ = host.split(".")
    words = ["kubectl", "--namespace", namespace, "get", "service", service, "--output", "jsonpath={.spec.clusterIP}"]
    here = os.environ.get("HIGHWATER_TEST_S3_HERE") or f"http://{run(*words).stdout.strip()}:{port or 80}"
    bucket = f"hw-test-{secrets.token_hex(4)}"
    boto3.client("s3", endpoint_url=here, region_name="us-east-1").create_bucket(Bucket=bucket)
    return Place(bucket, S3, here)


@contextmanager
def installed(place: Place) -> Iterator[Cluster]:
    """A namespace that enforces the restricted standard, with the platform and a shared Ray cluster."""
    space = Cluster(f"hw-test-{secrets.token_hex(4)}")
    run("kubectl", "create", "namespace", space.namespace)
    try:
        label = "pod-security.kubernetes.io/enforce=restricted"
        run("kubectl", "label", "namespace", space.namespace, label)
        literals = [f"--from-literal={name}={value}" for name, value in KEYS.items()]
        space.kubectl("create", "secret", "generic", "s3-keys", *literals)
        registry, _, rest = os.environ[IMAGE].partition("/")
        repository, _, tag = rest.rpartition(":")
        values = {
            "image.registry": registry,
            "image.repository": repository,
            "image.tag": tag,
            "submitImage.repository": repository,
            "submitImage.tag": tag,
            "storage": place.uri,
            "storageEndpoint": place.endpoint,
            "clientEndpoint": place.client_endpoint,
            "credentialsSecret": "s3-keys",
            "head.cpu": "0.2",
        }
        changes = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        space.helm("install", "highwater", str(ROOT / "charts/highwater"), *changes)
        yield space
    finally:
        # Runs first, so that the operator ends their pods; then all else.
        space.kubectl("delete", "rayjobs,rayclusters", "--all", "--wait=true", "--timeout=60s", ok=False, timeout_s=90)
        run("kubectl", "delete", "namespace", space.namespace, "--wait=false", ok=False)
