"""Runs led without Ray, in this process or in a forked child: for tests and benchmarks."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable

import torch
import torch._dynamo  # an optimizer's first use loads it for seconds; forked children have it from here

from infra.storage import open_store
from jobs.admission import Verdict, admit, read_run
from jobs.rundir import Result, RunDir
from jobs.spec import JobSpec
from trainers.backend import Backend, Processes
from trainers.driver import Driver
from trainers.run import in_effect

# The first backward pass of a process decides whether autograd starts threads, and a process with such threads
# cannot be forked to train. One on fake tensors, as preflight's, would start them; this one does not.
torch.ones(1, requires_grad=True).sum().backward()


def run_of(spec: JobSpec, name: str) -> RunDir:
    return RunDir(open_store(spec.storage), name)


def lead(
    spec: JobSpec, name: str, backend: Backend | None = None, stop: threading.Event | None = None
) -> Result | None:
    """Lead the run to its end in this process, several ranks in forked ones: torch is loaded there already."""
    # torch's own: about an argument of DistributedDataParallel, and about ranks that it ends after one was killed.
    warnings.simplefilter("ignore", FutureWarning)
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    run = run_of(spec, name)
    admission = admit(read_run(run, time.time()), spec, time.time())
    if admission.verdict is Verdict.FINISHED:
        return run.result()
    ranks = backend or Processes(start="fork")
    return Driver(in_effect(spec, admission, run.store), run, ranks, stop or threading.Event()).lead()


def in_child(work: Callable[[], object]) -> int:
    """Run work in a forked child; its process id. The parent must not have computed anything yet."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            work()
            code = 0
        except Exception:  # noqa: BLE001 - a process edge: the child must not go on as a second parent
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def finished(spec: JobSpec, name: str) -> RunDir:
    """The run, led to its end in a child; RuntimeError if it ended otherwise than done."""
    os.waitpid(in_child(lambda: lead(spec, name)), 0)
    run = run_of(spec, name)
    result = run.result()
    if result is None or result.reason != "done":
        raise RuntimeError(f"{run.uri} did not finish: {result.message if result else 'it has no result'}")
    return run
