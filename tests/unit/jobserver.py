"""A small HTTP server that speaks the endpoints of the Ray Jobs API that are used, and misbehaves on request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Cluster:
    address: str = ""
    token: str | None = None
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    logs: str = ""
    requests: list[str] = field(default_factory=list)
    fail: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Path prefix to the status and body that it answers."""
    drop_answer: bool = False
    """Take the next submission and close the connection without an answer."""
    mode: str | None = "disabled"


class Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: Any = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.cluster.requests.append(f"{self.command} {self.path}")
        for prefix, (status, text) in self.cluster.fail.items():
            if self.path.startswith(prefix):
                return self.answer(status, text)
        if self.path == "/api/authentication_mode":
            return (
                self.answer(200, {"authentication_mode": self.cluster.mode})
                if self.cluster.mode
                else self.answer(404, "")
            )
        if self.cluster.token and self.headers.get("Authorization") != f"Bearer {self.cluster.token}":
            return self.answer(401, "Unauthorized")
        return self.route(body)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - the names of the base class

    def route(self, body: bytes) -> None:
        path = self.path
        if path == "/api/version":
            return self.answer(200, {"ray_version": "2.60.0"})
        if path.startswith("/api/packages/gcs/"):
            name = path.rsplit("/", 1)[-1]
            if self.command == "PUT":
                self.cluster.packages[name] = body
            return self.answer(200 if name in self.cluster.packages else 404, "")
        if path == "/api/jobs/":
            return self.submit(json.loads(body))
        job_id = path.split("/")[3]
        job = self.cluster.jobs.get(job_id)
        if job is None:
            return self.answer(404, f"Job {job_id} does not exist")
        if path.endswith("/logs"):
            return self.answer(200, {"logs": self.cluster.logs})
        if path.endswith("/stop"):
            job["status"] = "STOPPED"
            return self.answer(200, {"stopped": True})
        return self.answer(200, job)

    def submit(self, request: dict[str, Any]) -> None:
        name = request["submission_id"]
        if name in self.cluster.jobs:
            text = f"Traceback (most recent call last):\n  ...\nRuntimeError: Job {name} already exists."
            return self.answer(500, text)
        self.cluster.jobs[name] = {"status": "PENDING", "message": "", "driver_exit_code": None, "request": request}
        if self.cluster.drop_answer:
            self.cluster.drop_answer = False
            self.close_connection = True
            return None
        return self.answer(200, {"submission_id": name, "job_id": name})


@contextmanager
def serve(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    cluster.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
