"""One rank's part of the fit stage, from a description that travels to the record of what was found. No Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from infra.storage import open_store
from jobs.errors import HighwaterError, Reason
from jobs.logtee import output_to
from jobs.rundir import RunDir
from jobs.specfile import spec_from_json
from jobs.streams import Flusher, StreamWriter
from jobs.units import quantity, size
from trainers.fit.find import Found, Purpose, find
from trainers.fit.limits import limits_for
from trainers.fit.prober import Prober
from trainers.fit.sizes import Limits, Reading, Surface
from trainers.fit.vote import ranks_here, smallest, vote
from trainers.group import Group
from trainers.memory import budget_bytes
from trainers.rank import prepared_data
from trainers.worker import StopWatch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitJob:
    """What every rank is told. Plain data."""

    spec: dict[str, Any]
    """The spec in JSON, sizes still `auto`."""
    name: str
    lease: int
    """Number of the driver's lease, by which events and logs are numbered: fit comes before the first attempt."""
    retry: int
    """How often the driver has started the search before."""
    facts: dict[str, Any]
    """The data stage's facts."""
    estimate: Surface | None
    """What preflight says."""

    @property
    def attempt(self) -> int:
        """A number that no other search of the run has."""
        return self.lease * 100 + self.retry

    def run(self, group: Group, device: torch.device, preempted: Callable[[], bool]) -> dict[str, Any]:
        """Find the size together with the other ranks; the facts of the fit stage's record, the same on all."""
        spec = spec_from_json(self.spec)
        run = RunDir(open_store(spec.storage, spec.storage_endpoint), self.name)
        events = StreamWriter(run, "events/fit", self.attempt)
        logs = StreamWriter(run, f"logs/fit-{group.rank}", self.attempt, "log")
        streams = [events, logs] if group.rank == 0 else [logs]
        stop = StopWatch(run, max(1.0, run.store.flush_s / 2)) if group.rank == 0 else None
        with output_to(logs), Flusher(streams, run.store.flush_s), prepared_data(run) as data:
            try:
                budget, source = budget_bytes(device, spec.memory_limit_mib, ranks_here(group))
                limits = limits_for(spec, self.facts, smallest(group, budget))
                unit = str(self.facts.get("unit", "units"))
                with Prober(spec, data, group.rank, group.world_size, device) as prober:

                    def agree(reading: Reading) -> Reading:
                        leaving = preempted() or (stop is not None and stop.asked)
                        voted, leave = vote(group, reading, leaving)
                        if leave:
                            raise HighwaterError("stopped while looking for the largest size", Reason.STOPPED)
                        return voted

                    def tell(purpose: Purpose, reading: Reading) -> None:
                        text = told(purpose, reading, limits, unit, group.world_size)
                        log.info("%s", text)
                        facts = reading.to_json() | {"purpose": purpose, "timeline": []}
                        events.row({"kind": "probe", "time": time.time(), "message": text} | facts)

                    found = find(prober, limits, self.estimate, agree, tell, unit)
                factors = {"workers": spec.workers, "accumulation": spec.accumulation}
                return record(found, limits) | factors | {"limit_source": source, "unit": unit}
            except Exception:
                log.exception("rank %d could not find a size", group.rank)
                raise
            finally:
                if stop:
                    stop.close()


def told(purpose: Purpose, reading: Reading, limits: Limits, unit: str, workers: int) -> str:
    """One line about one probe."""
    what = f"{'trying' if purpose == 'probe' else 'soaking'} {reading.size}"
    if reading.failed:
        return f"{what}: does not fit ({reading.failed})"
    if not reading.finite:
        return f"{what}: the loss is not finite"
    each = " per worker" if workers > 1 else ""
    speed = f", {quantity(reading.rate)} {unit}/s{each}" if reading.rate else ""
    return f"{what}: {size(reading.highest)} of {size(limits.budget)}{speed}"


def record(found: Found, limits: Limits) -> dict[str, Any]:
    """The facts of the stage's record: plain data for the report, the driver and people's own programs."""
    choice = found.choice
    document = choice.to_json()
    chosen: dict[str, Any] = document.pop("size")
    frontier = [point.pop("size") | point for point in document.pop("frontier")]
    return (
        chosen
        | document
        | {
            "measured": measured(found),
            "limit": limits.budget,
            "reserve": limits.reserve,
            "frontier": frontier,
            "probes": [{"purpose": purpose} | reading.to_json() for purpose, reading in found.readings],
        }
    )


def measured(found: Found) -> int | None:
    """The high-water mark that a probe measured at the chosen size; None if that size was not probed."""
    size = found.choice.size
    return next((r.highest for p, r in found.readings if p == "probe" and r.size == size and not r.failed), None)
