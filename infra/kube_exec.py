"""Runs a command in a container through the API server: a websocket whose frames begin with the number of a channel."""

from __future__ import annotations

import json
import select
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from infra.kube_errors import KubeError, UnreachableError, explain, unreachable

#: The kubernetes client's configuration and the websocket library's sockets have no types.
Untyped = Any
#: Newest first; what they share is all that is used here.
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
OUT, ERR, ENDED = 1, 2, 3
#: Seconds to connect; also how long one frame may take to arrive once it has begun.
CONNECT_S = 15.0
FRAME_S = 60.0
#: Seconds of silence after which the other side is asked whether it is there, and after which it is not.
PING_S = 20.0
DEAD_S = 75.0
#: Seconds between two looks at whether to stop.
TICK_S = 0.2


class Exec:
    """One command in one container. `configuration` is the kubernetes client's."""

    def __init__(
        self, configuration: Untyped, path: str, command: list[str], container: str, what: str, where: str
    ) -> None:
        self._configuration, self._what, self._where = configuration, what, where
        query = [("command", word) for word in command]
        query += [("container", container), ("stdout", "true"), ("stderr", "true")]
        self._url = "ws" + configuration.host.removeprefix("http") + path + "?" + urlencode(query)

    def run(self, out: Callable[[bytes], None], err: Callable[[bytes], None], stop: Callable[[], bool]) -> int:
        """Run it to its end, or until `stop`; the exit code. `KubeError` if it cannot begin, or is cut off."""
        from websocket import WebSocketException

        socket = self._connect()
        try:
            return self._follow(socket, out, err, stop)
        except (WebSocketException, OSError) as error:
            raise self._cut_off(str(error) or type(error).__name__) from error
        finally:
            socket.close(timeout=1)

    def _connect(self) -> Untyped:
        from websocket import WebSocket, WebSocketBadStatusException, WebSocketException

        socket: Untyped = WebSocket(sslopt=_tls(self._configuration), skip_utf8_validation=True)
        authorization = self._configuration.auth_settings().get("BearerToken", {}).get("value")
        headers = [f"Authorization: {authorization}"] if authorization else []
        try:
            socket.connect(
                self._url,
                header=headers,
                subprotocols=list(PROTOCOLS),
                timeout=CONNECT_S,
                suppress_origin=True,
                **_proxy(self._configuration),
            )
        except WebSocketBadStatusException as error:
            body = getattr(error, "resp_body", None) or b""
            raise explain(error.status_code, bytes(body), self._what, self._where) from error
        except (WebSocketException, OSError) as error:
            raise unreachable(self._what, self._where, self._configuration.host, str(error)) from error
        socket.settimeout(FRAME_S)
        return socket

    def _follow(
        self,
        socket: Untyped,
        out: Callable[[bytes], None],
        err: Callable[[bytes], None],
        stop: Callable[[], bool],
    ) -> int:
        from websocket import ABNF

        heard = asked = time.monotonic()
        while not stop():
            if not _readable(socket, TICK_S):
                now = time.monotonic()
                if now - heard > DEAD_S:
                    raise self._cut_off(f"nothing heard for {DEAD_S:.0f} s")
                if now - asked > PING_S:
                    asked = now
                    socket.ping()
                continue
            code, frame = socket.recv_data_frame(True)
            heard = asked = time.monotonic()
            if code == ABNF.OPCODE_CLOSE:
                raise self._cut_off("closed before the command ended")
            if code not in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) or not frame.data:
                continue
            channel, data = frame.data[0], bytes(frame.data[1:])
            if channel == ENDED:
                return self._exit_code(data)
            if data and channel in (OUT, ERR):
                (out if channel == OUT else err)(data)
        return 130

    def _exit_code(self, data: bytes) -> int:
        try:
            said = json.loads(data)
        except ValueError:
            said = {}
        if said.get("status") == "Success":
            return 0
        for cause in (said.get("details") or {}).get("causes") or []:
            if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdigit():
                return int(cause["message"])
        # The command could not be started, or was lost with its container.
        raise UnreachableError(f"cannot {self._what} in {self._where}: {said.get('message') or 'it ended unseen'}")

    def _cut_off(self, cause: str) -> KubeError:
        return UnreachableError(f"cannot {self._what} in {self._where}: the connection was cut off ({cause})")


def _readable(socket: Untyped, timeout_s: float) -> bool:
    """Whether there is something to read; TLS may hold bytes that the kernel knows nothing of."""
    raw = socket.sock
    if isinstance(raw, ssl.SSLSocket) and raw.pending():
        return True
    poll = select.poll()
    poll.register(raw, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _tls(configuration: Untyped) -> dict[str, Any]:
    """The options of the websocket library for what the kubeconfig says of TLS."""
    options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE}
    if not configuration.verify_ssl:
        options["check_hostname"] = False
    elif configuration.ssl_ca_cert:
        options["ca_certs"] = configuration.ssl_ca_cert
    if configuration.cert_file:
        options["certfile"] = configuration.cert_file
    if configuration.key_file:
        options["keyfile"] = configuration.key_file
    if configuration.tls_server_name:
        options["server_hostname"] = configuration.tls_server_name
    return options


def _proxy(configuration: Untyped) -> dict[str, Any]:
    from urllib.parse import urlsplit

    if not configuration.proxy:
        return {}
    proxy = urlsplit(configuration.proxy)
    return {"http_proxy_host": proxy.hostname, "http_proxy_port": proxy.port, "proxy_type": proxy.scheme or "http"}
