"""Asks `trainers.fit.plan` where a spec fits: in a process of its own, as this package imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from jobs.errors import HighwaterError, MissingExtraError
from jobs.spec import JobSpec
from jobs.submit import TAIL_LINES, DriverError, driver_environment, reason_of, safe_path

#: Module that plans; it is only named here.
PLAN_MODULE = "trainers.fit.plan"
#: Seconds after which a plan is given up: a hundred times what the largest recipe takes.
LIMIT_S = 900.0


def where_it_fits(
    spec: JobSpec, *, cards: str | None = None, prices: Sequence[str] = (), units_per_second: float | None = None
) -> dict[str, Any]:
    """What a spec's training takes, and the cards that hold it, as plain data.

    `cards` is a file of cards, `prices` are CARD=NUMBER per hour. Raises `HighwaterError` with one sentence for bad
    input, for data that cannot be read, and for a spec whose own memory limit holds no size at all.
    """
    require_torch()
    command = [sys.executable, *safe_path(), "-m", PLAN_MODULE, "-"]
    command += [f"--cards={cards}"] if cards is not None else []
    command += [f"--price={price}" for price in prices]
    command += [f"--units-per-second={units_per_second}"] if units_per_second is not None else []
    environment = driver_environment(spec, os.environ)
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise HighwaterError(f"the plan was not ready after {LIMIT_S:.0f} s and was given up; try again") from error
    if ended.returncode == 0:
        document: dict[str, Any] = json.loads(ended.stdout)
        return document
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    if lines and lines[-1].startswith("highwater: "):
        raise HighwaterError(lines[-1].removeprefix("highwater: "), reason_of(ended.returncode))
    tail = tuple(lines[-TAIL_LINES:])
    raise DriverError(f"the plan ended with code {ended.returncode} and no result", reason_of(ended.returncode), tail)


def require_torch() -> None:
    """MissingExtraError unless torch is installed; imports nothing."""
    if find_spec("torch") is None:
        raise MissingExtraError("highwater plan needs torch, though no GPU: pip install 'highwater[train]'")
