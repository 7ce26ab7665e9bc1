"""The client against an API server of our own on loopback: what it repeats, what it gives up, what it reads."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from infra.kube import KubeApi, connect, holds
from infra.kube_errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeRayMissingError,
    NoContextError,
    NotFoundInKubeError,
    ThrottledError,
    UnreachableError,
)

Answer = tuple[int, dict[str, Any] | bytes, dict[str, str]]


class Server:
    """Answers from a list, one for each request; keeps what was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer | None] = []
        """None: the connection is closed without an answer."""
        self.asked: list[tuple[str, str, dict[str, Any] | None]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                outer.asked.append((self.command, self.path, body))
                outer.headers.append(dict(self.headers))
                said = outer.answers.pop(0)
                if said is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                code, document, headers = said
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(code)
                for key, value in (headers | {"Content-Length": str(len(data))}).items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def says(self, *answers: Answer | None) -> None:
        self.answers += answers

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _, _ in self.asked]


def ok(document: dict[str, Any] | bytes) -> Answer:
    return 200, document, {}


def bad(code: int, message: str = "", **headers: str) -> Answer:
    return code, {"kind": "Status", "message": message, "details": {"name": "x"}}, headers


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def kube(server: Server, slept: list[float]) -> KubeApi:
    from kubernetes.client import Configuration

    configuration = Configuration(host=server.address)
    configuration.api_key["BearerToken"] = "Bearer secret-token"
    return KubeApi(configuration, "lab", "context c", sleep=slept.append)


def test_one_object(server: Server, kube: KubeApi) -> None:
    server.says(ok({"kind": "RayJob"}))
    assert kube.get("RayJob", "demo") == {"kind": "RayJob"}
    assert server.asked == [("GET", "/apis/ray.io/v1/namespaces/lab/rayjobs/demo", None)]
    assert server.headers[0]["Authorization"] == "Bearer secret-token"


def test_lists_come_in_pages(server: Server, kube: KubeApi) -> None:
    server.says(ok({"items": [1], "metadata": {"continue": "a b"}}), ok({"items": [2], "metadata": {}}))
    assert kube.list("Pod", {"highwater.io/run": "demo"}) == [1, 2]
    queries = [parse_qs(urlsplit(path).query) for _, path, _ in server.asked]
    assert queries[0]["labelSelector"] == ["highwater.io/run=demo"] and queries[1]["continue"] == ["a b"]


def test_what_may_pass_is_asked_again(server: Server, kube: KubeApi, slept: list[float]) -> None:
    server.says(bad(503), bad(429, **{"Retry-After": "3"}), None, ok({"a": 1}))
    assert kube.get("Pod", "x") == {"a": 1}
    assert slept == [0.5, 3.0, 2.0]


def test_but_not_for_ever(server: Server, kube: KubeApi, slept: list[float]) -> None:
    server.says(*[bad(429, **{"Retry-After": "9999"})] * 9)
    with pytest.raises(ThrottledError):
        kube.patch("Pod", "x", {"a": 1})
    assert len(server.asked) == 4 and slept == [10.0, 10.0, 10.0]
    assert server.headers[0]["Content-Type"] == "application/merge-patch+json"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (bad(403, "forbidden"), ForbiddenError),
        (bad(404), NotFoundInKubeError),
        ((404, b"404 page not found", {}), KubeRayMissingError),
        (bad(422, "no"), InvalidError),
    ],
)
def test_what_stays_wrong_is_asked_once(server: Server, kube: KubeApi, answer: Answer, error: type[Exception]) -> None:
    server.says(answer)
    with pytest.raises(error):
        kube.get("RayJob", "x")
    assert len(server.asked) == 1


def test_a_page_of_a_proxy_is_no_api(server: Server, kube: KubeApi) -> None:
    server.says(ok(b"<html>log in</html>"))
    with pytest.raises(UnreachableError, match="is no Kubernetes API"):
        kube.get("Pod", "x")


BODY = {"kind": "RayJob", "metadata": {"name": "demo", "annotations": {"a": "1"}}, "spec": {"x": [1]}}
MADE = {
    "metadata": {"name": "demo", "uid": "u", "annotations": {"a": "1"}},
    "kind": "RayJob",
    "spec": {"x": [1], "y": 2},
}


def test_a_lost_answer_is_looked_up(server: Server, kube: KubeApi) -> None:
    server.says(None, ok(MADE))
    assert kube.create(BODY) == MADE
    assert server.verbs == ["POST", "GET"]


def test_a_request_that_was_lost_is_sent_again(server: Server, kube: KubeApi, slept: list[float]) -> None:
    server.says(bad(500), bad(404), ok(MADE))
    assert kube.create(BODY) == MADE
    assert server.verbs == ["POST", "GET", "POST"] and slept == [0.5]


def test_an_equal_object_is_adopted_and_another_is_not(server: Server, kube: KubeApi) -> None:
    server.says(bad(409), ok(MADE))
    assert kube.create(BODY) == MADE
    server.says(bad(409, "exists"), ok(MADE | {"spec": {"x": [2]}}))
    with pytest.raises(ConflictError, match="exists"):
        kube.create(BODY)
    server.says(None, ok(MADE | {"spec": {"x": [2]}}))
    with pytest.raises(ConflictError, match="another one of that name"):
        kube.create(BODY)


def test_removing_what_is_gone_or_another_is_fine(server: Server, kube: KubeApi) -> None:
    server.says(ok({}), bad(404), bad(409))
    for _ in range(3):
        kube.delete("RayJob", "demo", uid="u")
    assert server.asked[0][2] == {"propagationPolicy": "Background", "preconditions": {"uid": "u"}}
    server.says(bad(409))
    with pytest.raises(ConflictError):
        kube.delete("RayJob", "demo")


def test_nothing_listens() -> None:
    from kubernetes.client import Configuration

    kube = KubeApi(Configuration(host="http://127.0.0.1:9"), "lab", "context c", sleep=lambda _: None)
    with pytest.raises(UnreachableError, match=r"nothing answers at http://127.0.0.1:9 \(Connection refused\)"):
        kube.get("Pod", "x")


@pytest.mark.parametrize(
    ("found", "sent", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": {"b": [{"c": 1, "d": 2}]}}, {"a": {"b": [{"c": 1}]}}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({}, {"a": None}, False),
        ({"a": "1"}, {"a": {"b": 1}}, False),
    ],
)
def test_holds(found: Any, sent: Any, same: bool) -> None:
    assert holds(found, sent) is same


# Kubeconfig


def kubeconfig(path: Path, name: str, current: str | None, namespace: str | None = None) -> Path:
    context = {"cluster": name, "user": name} | ({"namespace": namespace} if namespace else {})
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}:1"}}],
        "users": [{"name": name, "user": {"token": name}}],
        "contexts": [{"name": name, "context": context}],
        "current-context": current or "",
    }
    path.write_text(json.dumps(document))
    return path


def test_several_files_as_kubectl_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = kubeconfig(tmp_path / "one", "one", "one", "lab")
    two = kubeconfig(tmp_path / "two", "two", None)
    monkeypatch.setenv("KUBECONFIG", f"{one}:{tmp_path / 'absent'}:{two}")
    assert connect().where == "namespace lab of context one"
    assert connect("two").where == "namespace default of context two"
    assert connect("two", "mine").namespace == "mine"
    with pytest.raises(NoContextError, match=r"there is no context three in .*; it has one, two"):
        connect("three")


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "{}", "contexts: 7", "current-context: gone\ncontexts: []"])
def test_a_broken_kubeconfig_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(NoContextError) as raised:
        connect()
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.setattr("infra.kube_config.IN_CLUSTER", tmp_path)
    with pytest.raises(NoContextError, match="set KUBECONFIG"):
        connect()


# Exec


def frame(channel: int, data: bytes) -> bytes:
    payload = bytes([channel]) + data
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack(">H", len(payload))
    return b"\x82" + size + payload


class Pod:
    """A websocket server that answers one connection with these bytes, and closes."""

    def __init__(self, *frames: bytes, refuse: bytes = b"") -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.request = b""
        self._frames, self._refuse = frames, refuse
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            while b"\r\n\r\n" not in self.request:
                self.request += connection.recv(4096)
            if self._refuse:
                connection.sendall(self._refuse)
                return
            lines = self.request.decode().split("\r\n")
            key = next(line.split(": ")[1] for line in lines if line.lower().startswith("sec-websocket-key"))
            proof = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nSec-WebSocket-Accept: " + proof + b"\r\n\r\n"
            )
            for one in self._frames:
                connection.sendall(one)
        self.listener.close()

    def run(self, out: list[bytes], err: list[bytes] | None = None) -> int:
        from kubernetes.client import Configuration

        configuration = Configuration(host=f"http://127.0.0.1:{self.listener.getsockname()[1]}")
        configuration.api_key["BearerToken"] = "Bearer t"
        kube = KubeApi(configuration, "lab", "context c")
        err = [] if err is None else err
        return kube.run_in("p", ["sh", "-c", "a b"], container="ray-head", out=out.append, err=err.append)


SUCCESS = frame(3, b'{"status": "Success"}')


def test_a_command_gives_its_bytes_and_its_exit_code() -> None:
    out: list[bytes] = []
    err: list[bytes] = []
    binary = bytes(range(256)) * 100
    failed = {"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}
    pod = Pod(frame(1, b""), frame(1, binary), frame(2, b"oh"), frame(1, b"z"), frame(3, json.dumps(failed).encode()))
    assert pod.run(out, err) == 7
    assert b"".join(out) == binary + b"z" and err == [b"oh"]
    assert b"command=sh&command=-c&command=a+b&container=ray-head" in pod.request
    assert b"Authorization: Bearer t" in pod.request


def test_success() -> None:
    out: list[bytes] = []
    assert Pod(frame(1, b"x"), SUCCESS).run(out) == 0


@pytest.mark.parametrize("frames", [[frame(1, b"half")], [frame(1, b"half"), b"\x88\x00"], [frame(3, b"what")]])
def test_a_connection_that_ends_early_is_no_success(frames: list[bytes]) -> None:
    with pytest.raises(UnreachableError):
        Pod(*frames).run([])


def test_a_refusal_is_explained() -> None:
    body = json.dumps({"message": 'User "ann" cannot create resource "pods/exec"'}).encode()
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with pytest.raises(ForbiddenError, match="pods/exec"):
        Pod(refuse=head + body).run([])
