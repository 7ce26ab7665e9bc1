"""Who may do what, and who reaches what: roles as the API server decides them, policies as the network does."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator

import pytest

from tests.cluster.stage import IMAGE
from tests.cluster.tools import ROOT, Cluster, run, wait_for

USER = "hw-test-user"
ALLOWED = (
    ("create", "rayjobs.ray.io"),
    ("get", "rayjobs.ray.io"),
    ("list", "rayjobs.ray.io"),
    ("patch", "rayjobs.ray.io"),
    ("delete", "rayjobs.ray.io"),
    ("get", "pods"),
    ("list", "pods"),
    ("get", "pods/log"),
    ("create", "pods/exec"),
    ("get", "configmaps"),
    ("create", "configmaps"),
    ("create", "poddisruptionbudgets.policy"),
    ("list", "events"),
)
REFUSED = (
    ("get", "secrets"),
    ("list", "secrets"),
    ("create", "secrets"),
    ("create", "serviceaccounts"),
    ("create", "roles.rbac.authorization.k8s.io"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("create", "networkpolicies.networking.k8s.io"),
    ("delete", "networkpolicies.networking.k8s.io"),
    ("create", "deployments.apps"),
    ("create", "serviceaccounts/token"),
    ("patch", "resourcequotas"),
    ("delete", "events"),
    ("impersonate", "users"),
)
#: Tries to connect to each HOST:PORT, and prints whether it could.
KNOCK = """
import json, socket, sys
def knock(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        return True
    except OSError:
        return False
print(json.dumps({address: knock(address) for address in sys.argv[1:]}))
"""


@pytest.fixture(scope="module")
def user(cluster: Cluster) -> str:
    subject = json.dumps([{"kind": "User", "name": USER, "apiGroup": "rbac.authorization.k8s.io"}])
    chart = str(ROOT / "charts/highwater")
    cluster.helm("upgrade", "highwater", chart, "--reuse-values", "--set-json", f"rbac.users={subject}")
    return USER


def may(cluster: Cluster, user: str, verb: str, what: str, namespace: str | None = None) -> bool:
    kind, _, part = what.partition("/")
    words = ["kubectl", "auth", "can-i", verb, kind, "--as", user, "--namespace", namespace or cluster.namespace]
    # Otherwise the word behind the slash is the name of an object.
    words += ["--subresource", part] if part else []
    return run(*words, ok=False).stdout.strip() == "yes"


@pytest.mark.parametrize(("verb", "what"), ALLOWED)
def test_a_namespace_user_may(verb: str, what: str, cluster: Cluster, user: str) -> None:
    assert may(cluster, user, verb, what)
    assert not may(cluster, user, verb, what, "default")


@pytest.mark.parametrize(("verb", "what"), REFUSED)
def test_a_namespace_user_may_not(verb: str, what: str, cluster: Cluster, user: str) -> None:
    assert not may(cluster, user, verb, what)


def test_pods_of_runs_have_no_rights_and_no_token(cluster: Cluster) -> None:
    account = f"system:serviceaccount:{cluster.namespace}:highwater-run"
    for verb, what in (*ALLOWED, *REFUSED):
        assert not may(cluster, account, verb, what)
    assert cluster.get("serviceaccount", "highwater-run")["automountServiceAccountToken"] is False


@pytest.fixture
def elsewhere() -> Iterator[Cluster]:
    """Another namespace, with nothing of Highwater's."""
    space = Cluster(f"hw-test-{secrets.token_hex(4)}")
    run("kubectl", "create", "namespace", space.namespace)
    yield space
    run("kubectl", "delete", "namespace", space.namespace, "--wait=false")


def knocked(space: Cluster, addresses: list[str], labels: str) -> dict[str, bool]:
    """Which addresses a pod of this namespace can connect to."""
    name = f"knock-{secrets.token_hex(3)}"
    words = ["run", name, f"--image={os.environ[IMAGE]}", "--restart=Never", f"--labels={labels}"]
    overrides = {
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": name,
                    "image": os.environ[IMAGE],
                    "command": ["python", "-c", KNOCK, *addresses],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        }
    }
    space.kubectl(*words, f"--overrides={json.dumps(overrides)}")
    wait_for("the knocks", lambda: space.get("pod", name)["status"]["phase"] in ("Succeeded", "Failed"), 90)
    said = space.kubectl("logs", name)
    space.kubectl("delete", "pod", name, "--wait=false")
    return dict(json.loads(said))


@pytest.mark.usefixtures("shared")
def test_strangers_reach_no_port_of_ray(cluster: Cluster, elsewhere: Cluster) -> None:
    if os.environ.get("HIGHWATER_TEST_POLICIES") != "1":
        pytest.skip("skipped: HIGHWATER_TEST_POLICIES is not 1, so this cluster's network may not enforce policies")
    head = cluster.get("pods", selector="ray.io/cluster=highwater-shared,ray.io/node-type=head")["items"][0]
    worker = cluster.get("pods", selector="ray.io/cluster=highwater-shared,ray.io/node-type=worker")["items"][0]
    ports = [8265, 6379, 10001, 8080]
    addresses = [f"{head['status']['podIP']}:{port}" for port in ports] + [f"{worker['status']['podIP']}:8080"]
    assert not any(knocked(elsewhere, addresses, "app=stranger").values())
    # A label alone opens nothing from another namespace, nor does the namespace without it.
    assert not any(knocked(elsewhere, addresses, "app.kubernetes.io/name=highwater").values())
    assert not any(knocked(cluster, addresses, "app=stranger").values())
    family = knocked(cluster, addresses, "app.kubernetes.io/name=highwater")
    assert all(family.values()), family
