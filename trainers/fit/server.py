"""`python -m trainers.fit.server FD TASK [free]`: imports training once, and forks a fresh process for every request.

A fresh process has an allocator without a past, and can be put under a real limit. Importing torch anew for each
would take seconds; a fork takes milliseconds. So this process computes nothing and touches no GPU: what it has, all
its children have. It talks JSON over the socket FD that its parent left open, and ends with its parent; a child
ends with it.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import torch

from jobs.errors import Reason
from trainers.fit.probe import run
from trainers.fit.probe_frames import frame, receive, send, unframe
from trainers.fit.probe_request import Request
from trainers.fit.sizes import Reading
from trainers.memory import settle, share_heap
from trainers.task import TASKS

log = logging.getLogger(__name__)

TAIL = 2000
"""Bytes of what a child printed that are kept for the failure's sentence."""
PR_SET_PDEATHSIG = 1

#: How a process ends that was refused memory where its code does not check, or that the kernel chose to end.
STARVED = {signal.SIGKILL, signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV}


def serve(parent: socket.socket, task: str, limited: bool) -> None:
    """Answer requests one by one until the parent is gone. `limited`: a limit is declared (`trainers.rank`)."""
    # Ctrl-C reaches the whole group of the terminal; whoever asks decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    share_heap()
    if limited:
        settle()
    _load(task)
    send(parent, {"ready": os.getpid()})
    while True:
        try:
            request = Request.from_json(receive(parent))
        except (EOFError, OSError):
            return
        with tempfile.TemporaryDirectory(prefix="highwater-probe-") as folder:
            reading = _answer(request, Path(folder), parent)
        if reading is None:
            return
        try:
            send(parent, reading.to_json())
        except OSError:
            return


def _load(task: str) -> None:
    """Import what is imported only on use: children would each do it again, and count it as training's memory."""
    importlib.import_module(TASKS[task])
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])


def _answer(request: Request, folder: Path, parent: socket.socket) -> Reading | None:
    """What a child of its own says, or why it said nothing; None if the parent went meanwhile."""
    result, result_in = os.pipe()
    output, output_in = os.pipe()
    child = os.fork()
    if child == 0:
        _child(request, folder, result_in, output_in)
    os.close(result_in)
    os.close(output_in)
    try:
        told, tail, why = _listen(result, output, parent, request.timeout_s)
    finally:
        status = _end(child)
        os.close(result)
        os.close(output)
    if why == "parent":
        return None
    document = unframe(told)
    if document is not None:
        return Reading.from_json(document)
    return _died(request, status, tail, timed_out=why == "time")


def _end(child: int) -> int:
    """The status that the child ended with; one that still runs a moment after its pipes closed is killed."""
    for _ in range(50):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _listen(result: int, output: int, parent: socket.socket, timeout_s: float) -> tuple[bytes, bytes, str]:
    """The child's answer, the end of what it printed, and why listening ended: `end`, `time` or `parent`."""
    told, tail, deadline = b"", b"", time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for stream in (result, output, parent):
            selector.register(stream, selectors.EVENT_READ)
        while True:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return told, tail, "time"
            files = {key.fd for key, _ in ready}
            if output in files:
                tail = (tail + (more := os.read(output, 65536)))[-TAIL:]
                if not more:
                    selector.unregister(output)
            if result in files:
                if not (more := os.read(result, 65536)):
                    return told, tail, "end"
                told += more
            elif parent.fileno() in files:
                # Nobody asks twice before the answer: this is the end of the parent.
                return told, tail, "parent"


def _child(request: Request, folder: Path, result: int, output: int) -> None:
    """The forked process: do the work, leave the answer, and go without running anything of the server's."""
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        _die_with_server()
        answer = frame(run(request, folder).to_json())
        while answer:
            answer = answer[os.write(result, answer) :]
    except BaseException:
        log.exception("the answer could not be given")
    finally:
        os._exit(0)


def _die_with_server() -> None:
    server = os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(0)


def _died(request: Request, status: int, tail: bytes, *, timed_out: bool) -> Reading:
    """The reading of a child that left no answer."""
    printed = tail.decode(errors="replace").strip().splitlines()
    last = f"; it last said: {printed[-1][:300]}" if printed else ""
    if timed_out:
        why = f"was not done within {request.timeout_s:.0f} s{last}; give a smaller size, or check the data's storage"
        return Reading(request.size, failed=f"{request.purpose} of {request.size} {why}", reason=Reason.INTERNAL.value)
    ended = os.waitstatus_to_exitcode(status)
    if ended >= 0:
        why = f"ended without an answer{last}"
        return Reading(request.size, failed=f"{request.purpose} of {request.size} {why}", reason=Reason.INTERNAL.value)
    number = signal.Signals(-ended)
    starved = number in STARVED and (request.budget is not None or number == signal.SIGKILL)
    reason = Reason.OUT_OF_MEMORY if starved else Reason.WORKER_LOST
    why = f"was ended by {number.name}{', as a process out of memory is' if starved else ''}{last}"
    return Reading(
        request.size,
        failed=f"{request.purpose} of {request.size} {why}",
        reason=reason.value,
        peak=request.budget or 0 if starved else 0,
    )


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], limited=sys.argv[3:] != ["free"])
    # Taking torch apart module by module would cost seconds, and there is nothing to keep.
    os._exit(0)
