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


@contextmanager
def serve(cluster: Cluster) -> Iterator[Cluster]:
    class Handler(BaseHTTPRequestHandler):
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
            cluster.requests.append(f"{self.command} {self.path}")
            for prefix, (status, text) in cluster.fail.items():
                if self.path.startswith(prefix):
                    return self.answer(status, text)
            if self.path == "/api/authentication_mode":
                return self.answer(200, {"authentication_mode": cluster.mode}) if cluster.mode else self.answer(404, "")
            if cluster.token and self.headers.get("Authorization") != f"Bearer {cluster.token}":
                return self.answer(401, "Unauthorized")
            return self.route(body)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

        def route(self, body: bytes) -> None:
            path = self.path
            if path == "/api/version":
                return self.answer(200, {"ray_version": "2.60.0"})
            if path.startswith("/api/packages/gcs/"):
                name = path.rsplit("/", 1)[-1]
                if self.command == "PUT":
                    cluster.packages[name] = body
                return self.answer(200 if name in cluster.packages else 404, "")
            if path == "/api/jobs/":
                return self.submit(json.loads(body))
            job_id = path.split("/")[3]
            job = cluster.jobs.get(job_id)
            if job is None:
                return self.answer(404, f"Job {job_id} does not exist")
            if path.endswith("/logs"):
                return self.answer(200, {"logs": cluster.logs})
            if path.endswith("/stop"):
                job["status"] = "STOPPED"
                return self.answer(200, {"stopped": True})
            return self.answer(200, job)

        def submit(self, request: dict[str, Any]) -> None:
            name = request["submission_id"]
            if name in cluster.jobs:
                text = f"Traceback (most recent call last):\n  ...\nRuntimeError: Job {name} already exists."
                return self.answer(500, text)
            cluster.jobs[name] = {"status": "PENDING", "message": "", "driver_exit_code": None, "request": request}
            if cluster.drop_answer:
                cluster.drop_answer = False
                self.close_connection = True
                return None
            return self.answer(200, {"submission_id": name, "job_id": name})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    cluster.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
