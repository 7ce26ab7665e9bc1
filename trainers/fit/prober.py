"""Runs sizes on this rank's device, each in a fresh process that ends before the next begins."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import torch

import trainers
from jobs.errors import HighwaterError, Reason
from jobs.spec import JobSpec
from trainers.fit.probe_frames import receive, send
from trainers.fit.probe_request import Purpose, Request
from trainers.fit.sizes import Reading, Size

START_S = 120.0
"""Seconds in which the server must have imported torch; it takes three on an idle machine."""
TIMEOUT_S = 300.0
"""Seconds of one probe or soak at most."""
SLACK_S = 30.0
"""Seconds beyond a request's own limit after which its server is taken for lost."""
RATE = 1e-3
"""Learning rate where the spec's is still to be found: memory and speed do not depend on it."""


class Prober:
    """Probes sizes of one spec on one rank. A context manager; the server is started by the first probe.

    Safe in any process, Ray's workers and those with threads or a GPU of their own among them: the server is a
    plain subprocess, and only it forks.
    """

    def __init__(self, spec: JobSpec, data: Path, rank: int, workers: int, device: torch.device) -> None:
        """`data` is the folder of prepared data; batch and bptt of the spec do not matter."""
        self._spec, self._data, self._rank, self._workers, self._device = spec, data, rank, workers, device
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: socket.socket | None = None
        self._said: IO[bytes] | None = None

    def probe(self, size: Size, budget: int | None) -> Reading:
        """What the size takes, in bytes and seconds, measured over a few steps. On the CPU in two processes.

        `budget` is what the process may use, in bytes. Running out of it is a reading with `failed`, and so is
        whatever else a probe meets; HighwaterError only if no process can be started.
        """
        ran = self._ask("probe", size, budget, TIMEOUT_S)
        if ran.failed or self._device.type != "cpu":
            return ran
        metered = self._ask("meter", size, budget, TIMEOUT_S)
        if metered.failed:
            return metered
        # What the kernel counts beyond the meter: arrays that are not torch's, compiled code, rounding to pages.
        other = max(0, ran.peak - max(metered.peak, metered.fixed))
        return replace(metered, other=other, seconds=ran.seconds, units=ran.units, finite=ran.finite and metered.finite)

    def soak(
        self,
        size: Size,
        budget: int | None,
        *,
        steps: int | None = None,
        passes: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Reading:
        """Whether training survives at this size under the budget, as a real limit from before it loads its data.

        Runs distinct shapes, an evaluation, a save, and ordinary steps while the rate rises to the spec's.
        `passes`: all distinct shapes, this often; `steps`: so many ordinary steps. Errors as in `probe`.
        """
        return self._ask("soak", size, budget, timeout_s, steps=steps, passes=passes)

    def close(self) -> None:
        """End the server and what it runs."""
        if self._peer is not None:
            self._peer.close()
        if self._process is not None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._said is not None:
            self._said.close()
        self._peer = self._process = self._said = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(
        self,
        purpose: Purpose,
        size: Size,
        budget: int | None,
        timeout_s: float,
        *,
        steps: int | None = None,
        passes: int | None = None,
    ) -> Reading:
        request = Request(
            purpose,
            self._document(size),
            str(self._data),
            self._rank,
            self._workers,
            str(self._device),
            budget,
            timeout_s,
            steps,
            passes,
        )
        peer = self._peer or self._start()
        try:
            peer.settimeout(timeout_s + SLACK_S)
            send(peer, request.to_json())
            return Reading.from_json(receive(peer))
        except (OSError, EOFError) as error:
            said = self._last_words()
            if self._process is not None:
                self._process.kill()
            self.close()
            why = f"the process that runs probes was lost ({type(error).__name__}{said})"
            return Reading(size, failed=f"{purpose} of {size}: {why}", reason=Reason.WORKER_LOST.value)

    def _document(self, size: Size) -> dict[str, object]:
        """The spec at this size, in JSON."""
        document: dict[str, object] = self._spec.model_dump(mode="json") | {"batch": size.batch}
        if size.bptt is not None:
            document["bptt"] = size.bptt
        if not isinstance(self._spec.learning_rate, float | int):
            document["learning_rate"] = RATE
        return document

    def _start(self) -> socket.socket:
        """Start the server, and wait until it is ready."""
        self._peer, theirs = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        folder = str(Path(trainers.__file__).parents[1])
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        threads, free = str(self._spec.threads), ["free"] if self._spec.memory_limit_mib is None else []
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trainers.fit.server", str(theirs.fileno()), self._spec.task, *free],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                # A look for GPUs through the driver would keep the server's children from using them.
                env=os.environ
                | {"PYTHONPATH": path, "OMP_NUM_THREADS": threads}
                | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "KINETO_USDT": "0"},
            )
        try:
            self._peer.settimeout(START_S)
            receive(self._peer)
        except (OSError, EOFError) as error:
            self._process.kill()
            said = self._last_words()
            self.close()
            raise HighwaterError(
                f"the process that runs probes did not start with {sys.executable} ({type(error).__name__}{said}); "
                "check that torch can be imported there"
            ) from error
        return self._peer

    def _last_words(self) -> str:
        """The last line that the server printed, behind a colon."""
        if self._said is None:
            return ""
        self._said.seek(0)
        lines = self._said.read()[-2000:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:300]}" if lines else ""
