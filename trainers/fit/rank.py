"""One rank's part of the fit stage, from a description that travels to the record of what was found. No Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from jobs.errors import HighwaterError, Reason
from jobs.specfile import spec_from_json
from jobs.units import quantity, size
from trainers.desk import at_desk
from trainers.fit.find import Found, Purpose, find
from trainers.fit.limits import limits_for
from trainers.fit.prober import Prober
from trainers.fit.sizes import Limits, Reading, Surface
from trainers.fit.vote import ranks_here, smallest, vote
from trainers.group import Group
from trainers.memory import budget_bytes


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
        with at_desk("fit", spec, self.name, self.attempt, group.rank, preempted) as desk:
            budget, source = budget_bytes(device, spec.memory_limit_mib, ranks_here(group))
            limits = limits_for(spec, self.facts, smallest(group, budget))
            unit = str(self.facts.get("unit", "units"))

            def agree(reading: Reading) -> Reading:
                voted, leave = vote(group, reading, desk.leaving())
                if leave:
                    raise HighwaterError("stopped while looking for the largest size", Reason.STOPPED)
                return voted

            def tell(purpose: Purpose, reading: Reading) -> None:
                facts = reading.to_json() | {"purpose": purpose, "timeline": []}
                desk.tell("probe", told(purpose, reading, limits, unit, group.world_size), **facts)

            with Prober(spec, desk.data, group.rank, group.world_size, device) as prober:
                found = find(prober, limits, self.estimate, agree, tell, unit)
            factors = {"workers": spec.workers, "accumulation": spec.accumulation}
            return record(found, limits) | factors | {"limit_source": source, "unit": unit}


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
