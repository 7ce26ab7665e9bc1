"""What the network policies let through, asked of the rendered rules as a network would ask."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.charts import helm

Object = dict[str, Any]
NAMESPACE = "runs"
HEAD = {"app.kubernetes.io/name": "highwater", "app.kubernetes.io/component": "head"}
WORKER = {"app.kubernetes.io/name": "highwater", "app.kubernetes.io/component": "worker"}
SUBMIT = {"app.kubernetes.io/name": "highwater", "app.kubernetes.io/component": "submit"}
TEST = {"app.kubernetes.io/name": "highwater", "app.kubernetes.io/component": "test"}
#: Such as the pod through which files are pulled.
BARE = {"app.kubernetes.io/name": "highwater"}
OTHER = {"app": "other"}
RAY_PORTS = (6379, 8265, 10001, 8080, 52365, 31234)
METADATA = "169.254.169.254"


class Network:
    """The policies of one rendering; `into` and `out_of` say whether a connection is let through."""

    def __init__(self, *sets: str, **values: Any) -> None:
        rendered = helm.template("highwater", *sets, values=values, namespace=NAMESPACE)
        self.policies = [body for body in rendered if body["kind"] == "NetworkPolicy"]

    def into(
        self, pod: dict[str, str], port: int, *, labels: dict[str, str] = OTHER, namespace: str = NAMESPACE
    ) -> bool:
        return self._asks("Ingress", "from", pod, port, "TCP", lambda peer: _is_pod(peer, labels, namespace))

    def out_of(
        self,
        pod: dict[str, str],
        port: int,
        *,
        labels: dict[str, str] = OTHER,
        namespace: str = NAMESPACE,
        address: str | None = None,
        protocol: str = "TCP",
    ) -> bool:
        def chosen(peer: Object) -> bool:
            return _is_address(peer, address) if address else _is_pod(peer, labels, namespace)

        return self._asks("Egress", "to", pod, port, protocol, chosen)

    def _asks(self, kind: str, side: str, pod: dict[str, str], port: int, protocol: str, chosen: Any) -> bool:
        mine = [p["spec"] for p in self.policies
                if kind in p["spec"]["policyTypes"] and _matches(p["spec"]["podSelector"], pod)]  # fmt: skip
        if not mine:
            return True
        rules = [rule for spec in mine for rule in spec.get(kind.lower(), [])]
        return any(
            any(chosen(peer) for peer in rule[side])
            and ("ports" not in rule or {"protocol": protocol, "port": port} in rule["ports"])
            for rule in rules
        )


def _matches(selector: Object, labels: dict[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    return all(
        (labels.get(e["key"]) in e["values"]) == (e["operator"] == "In") for e in selector.get("matchExpressions", [])
    )


def _is_pod(peer: Object, labels: dict[str, str], namespace: str) -> bool:
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" in peer:
        home = _matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
    else:
        home = namespace == NAMESPACE
    return home and _matches(peer.get("podSelector", {}), labels)


def _is_address(peer: Object, address: str) -> bool:
    if "ipBlock" not in peer:
        return False
    ip = ipaddress.ip_address(address)
    block = peer["ipBlock"]
    cidr = ipaddress.ip_network(block["cidr"])
    left_out = [ipaddress.ip_network(text) for text in block.get("except", [])]
    # What the API server demands of exceptions.
    assert all(net.version == cidr.version and net.subnet_of(cidr) and net != cidr for net in left_out), block  # type: ignore[arg-type]
    return ip in cidr and not any(ip in net for net in left_out)


@pytest.fixture(scope="module")
def plain() -> Network:
    return Network()


@pytest.fixture(scope="module")
def in_cluster() -> Network:
    return Network(storage="s3://b-b/runs", storageEndpoint="http://s3.testbed.svc.cluster.local:7070")


@pytest.mark.parametrize("port", RAY_PORTS)
@pytest.mark.parametrize("pod", [HEAD, WORKER])
def test_only_pods_of_runs_reach_rays_ports(plain: Network, pod: dict[str, str], port: int) -> None:
    assert plain.into(pod, port, labels=HEAD)
    assert plain.into(pod, port, labels=WORKER)
    assert plain.into(pod, port, labels=BARE)
    for other in (HEAD, WORKER, BARE):
        assert plain.out_of(other, port, labels=pod)
        assert not plain.out_of(other, port, labels=pod, namespace="elsewhere")
        assert not plain.out_of(other, port, labels=OTHER)
    assert not plain.into(pod, port, labels=OTHER)
    assert not plain.into(pod, port, labels=WORKER, namespace="elsewhere")
    assert not plain.into(pod, port, labels=OTHER, namespace="elsewhere")


def test_the_operator_reaches_the_dashboard_of_heads_alone(plain: Network) -> None:
    assert plain.into(HEAD, 8265, namespace="kuberay-system")
    assert not plain.into(WORKER, 8265, namespace="kuberay-system")
    assert not any(plain.into(HEAD, port, namespace="kuberay-system") for port in RAY_PORTS if port != 8265)
    moved = Network("networkPolicy.operatorNamespace=ray", "networkPolicy.operatorPorts={8265,52365}")
    assert moved.into(HEAD, 52365, namespace="ray")
    assert not moved.into(HEAD, 8265, namespace="kuberay-system")


def test_prometheus_reads_metrics_and_nothing_else(plain: Network) -> None:
    for pod in (HEAD, WORKER):
        assert plain.into(pod, 8080, namespace="monitoring")
        assert not plain.into(pod, 8265, namespace="monitoring")
    moved = Network("networkPolicy.prometheusNamespace=prom", "networkPolicy.metricsPorts={9000}")
    assert moved.into(HEAD, 9000, namespace="prom")
    assert not moved.into(HEAD, 8080, namespace="monitoring")
    assert not Network("networkPolicy.prometheusNamespace=").into(HEAD, 8080, namespace="monitoring")


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
@pytest.mark.parametrize("pod", [HEAD, WORKER, SUBMIT])
def test_names_are_found(plain: Network, pod: dict[str, str], protocol: str) -> None:
    assert plain.out_of(pod, 53, namespace="kube-system", protocol=protocol)
    assert plain.out_of(pod, 53, address="169.254.20.10", protocol=protocol)
    assert not plain.out_of(pod, 53, namespace="elsewhere", protocol=protocol)
    moved = Network("networkPolicy.dns.namespace=dns", "networkPolicy.dns.ports={5353}")
    assert moved.out_of(pod, 5353, namespace="dns", protocol=protocol)


@pytest.mark.parametrize("pod", [HEAD, WORKER, SUBMIT, BARE])
def test_s3_of_aws_is_everywhere_but_link_local(plain: Network, pod: dict[str, str]) -> None:
    assert plain.out_of(pod, 443, address="52.1.2.3")
    assert plain.out_of(pod, 443, address="2600::1")
    for address in (METADATA, "169.254.170.2", "fd00:ec2::254", "fe80::1"):
        assert not plain.out_of(pod, 443, address=address)
        assert not plain.out_of(pod, 80, address=address)
    assert not plain.out_of(WORKER, 80, address="52.1.2.3")
    assert not plain.out_of(WORKER, 6443, address="10.0.0.1")


def test_s3_in_the_cluster_is_its_namespace_and_port_alone(in_cluster: Network) -> None:
    assert in_cluster.out_of(WORKER, 7070, namespace="testbed")
    assert not in_cluster.out_of(WORKER, 7070, namespace="elsewhere")
    assert not in_cluster.out_of(WORKER, 443, namespace="testbed")
    assert not in_cluster.out_of(WORKER, 7070, address="52.1.2.3")
    assert not in_cluster.out_of(WORKER, 443, address="52.1.2.3")


@pytest.mark.parametrize(
    ("endpoint", "namespace", "port"),
    [
        ("http://minio.store.svc:9000", "store", 9000),
        ("https://minio.store.svc.cluster.local", "store", 443),
        ("http://minio.store.svc", "store", 80),
        ("http://minio", NAMESPACE, 80),
        ("http://minio:9000", NAMESPACE, 9000),
    ],
)
def test_a_service_is_found_by_its_name(endpoint: str, namespace: str, port: int) -> None:
    network = Network(storage="s3://b-b", storageEndpoint=endpoint)
    assert network.out_of(WORKER, port, namespace=namespace)
    assert not network.out_of(WORKER, port, address="52.1.2.3")


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("https://s3.example.com", 443),
        ("http://10.0.0.7:9000", 9000),
        ("http://[fd12::7]:9000", 9000),
        ("http://localhost:1", 1),
    ],
)
def test_a_server_elsewhere_is_reached_by_its_port(endpoint: str, port: int) -> None:
    network = Network(storage="s3://b-b", storageEndpoint=endpoint)
    assert network.out_of(WORKER, port, address="10.0.0.7")
    assert network.out_of(WORKER, port, address="fd12::7")
    assert not network.out_of(WORKER, port + 1, address="10.0.0.7")
    assert not network.out_of(WORKER, port, address=METADATA)


def test_storage_by_values() -> None:
    network = Network(networkPolicy={"storage": {"ports": [9000], "cidrs": ["10.1.0.0/16"], "namespaces": ["minio"]}})
    assert network.out_of(WORKER, 9000, address="10.1.2.3")
    assert network.out_of(WORKER, 9000, namespace="minio")
    assert not network.out_of(WORKER, 9000, address="10.2.2.3")
    assert not network.out_of(WORKER, 443, address="10.1.2.3")


@pytest.mark.parametrize(
    "cidr", ["0.0.0.0/0", "128.0.0.0/1", "160.0.0.0/3", "169.0.0.0/8", "168.0.0.0/6", "::/0", "fc00::/7", "fd00::/8"]
)
def test_no_cidr_opens_the_metadata(cidr: str) -> None:
    network = Network(networkPolicy={"storage": {"cidrs": [cidr]}, "apiServer": {"cidrs": [cidr]}})
    for pod in (WORKER, SUBMIT):
        assert not network.out_of(pod, 443, address=METADATA)
        assert not network.out_of(pod, 443, address="fd00:ec2::254")


@pytest.mark.parametrize(
    ("cidr", "inside"), [("10.0.0.0/8", "10.1.1.1"), ("192.0.0.0/2", "200.1.1.1"), ("fd12::/16", "fd12::1")]
)
def test_other_cidrs_are_left_as_they_are(cidr: str, inside: str) -> None:
    network = Network(networkPolicy={"storage": {"cidrs": [cidr]}})
    assert network.out_of(WORKER, 443, address=inside)
    blocks = [peer["ipBlock"] for policy in network.policies if policy["metadata"]["name"] == "highwater-egress"
              for rule in policy["spec"]["egress"] for peer in rule["to"] if "ipBlock" in peer]  # fmt: skip
    assert {"cidr": cidr} in blocks


def test_workload_identity_opens_the_metadata() -> None:
    network = Network(
        "workloadIdentity.enabled=true", storage="s3://b-b", storageEndpoint="https://s3.example.com:8443"
    )
    assert network.out_of(WORKER, 80, address=METADATA)
    assert network.out_of(WORKER, 443, address="52.1.2.3"), "where keys are exchanged"
    assert network.out_of(WORKER, 8443, address="52.1.2.3")
    assert not network.out_of(WORKER, 443, address=METADATA)


def test_only_pods_of_the_command_reach_the_api(plain: Network) -> None:
    for pod in (SUBMIT, TEST):
        assert plain.out_of(pod, 6443, address="10.0.0.1")
        assert not plain.into(pod, 8080, labels=WORKER)
    for pod in (HEAD, WORKER, BARE):
        assert not plain.out_of(pod, 6443, address="10.0.0.1")
    narrow = Network(
        networkPolicy={"apiServer": {"cidrs": ["10.0.0.1/32"], "ports": [443]}, "storage": {"ports": [9000]}}
    )
    assert narrow.out_of(SUBMIT, 443, address="10.0.0.1")
    assert not narrow.out_of(SUBMIT, 443, address="10.0.0.2")


def test_the_autoscaler_reaches_the_api() -> None:
    network = Network("sharedCluster.enabled=true")
    shared = {"highwater.io/cluster": "highwater-shared"}
    assert network.out_of(HEAD | shared, 6443, address="10.0.0.1")
    assert not network.out_of(WORKER | shared, 6443, address="10.0.0.1")
    assert not network.out_of(HEAD, 6443, address="10.0.0.1"), "the head of a run"


def test_rules_of_ones_own() -> None:
    notebooks = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "notebooks"}}}
    dashboard = {"protocol": "TCP", "port": 8265}
    server = {"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}], "ports": [{"protocol": "TCP", "port": 80}]}
    network = Network(
        networkPolicy={"extraIngress": [{"from": [notebooks], "ports": [dashboard]}], "extraEgress": [server]}
    )
    assert network.into(HEAD, 8265, namespace="notebooks")
    assert not network.into(HEAD, 6379, namespace="notebooks")
    assert network.out_of(WORKER, 80, address="10.9.1.1")


def test_other_pods_of_the_namespace_are_left_alone(plain: Network) -> None:
    assert plain.into(OTHER, 80)
    assert plain.out_of(OTHER, 80, address="1.2.3.4")


def test_policies_can_be_left_out() -> None:
    assert Network("networkPolicy.enabled=false").policies == []
