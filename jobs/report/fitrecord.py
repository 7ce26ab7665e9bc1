"""The record of the fit stage as the panels need it; whatever is odd in it is left out, never trusted."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.report.text import finite
from jobs.report.view import section
from jobs.rundir import Row

MOST_BYTES = 2.0**60
MOST_ROWS = 10**9
MANY = 200
"""Probes and points that are read at most; a search makes a dozen."""
PARTS = ("other", "weights", "optimizer", "gradients", "buckets", "data", "activations")
"""What memory goes to, as it is stacked: what stays at the bottom, what comes and goes on top."""


@dataclass(frozen=True)
class Size:
    """Rows of a micro-step on one worker, and time steps of each (None without sequences)."""

    batch: int
    bptt: int | None

    def __str__(self) -> str:
        return f"batch {self.batch:,}" + (f" x bptt {self.bptt:,}" if self.bptt else "")


@dataclass(frozen=True)
class Probe:
    """What running one size measured. Bytes and seconds; None where it did not get that far."""

    size: Size
    soak: bool
    failed: str
    finite: bool
    retries: int
    highest: float | None
    rate: float | None
    other: float
    phases: dict[str, float]
    parts: dict[str, float]
    timeline: list[dict[str, float]]


@dataclass(frozen=True)
class Point:
    """The largest batch at one bptt."""

    size: Size
    bytes: float | None
    rate: float | None
    known: str
    limited_by: str


@dataclass(frozen=True)
class Surface:
    """High-water mark over sizes, as the search solved it: see `highest`."""

    persistent: float
    fixed: float
    other: float
    constant: float
    row: float
    step: float
    cell: float
    square: float

    def highest(self, batch: float, bptt: float | None) -> float:
        """Bytes at the highest moment of training: other + max(fixed, persistent + what grows with the size)."""
        steps = bptt or 1
        each = self.row + self.cell * steps + self.square * steps**2
        return self.other + max(self.fixed, self.persistent + self.constant + self.step * steps + each * batch)

    def largest_batch(self, bptt: float | None, budget: float) -> float:
        """The batch, not rounded, whose mark is the budget; 0 if none stays below, infinity if all do."""
        if self.highest(0, bptt) > budget:
            return 0.0
        steps = bptt or 1
        each = self.row + self.cell * steps + self.square * steps**2
        room = budget - self.other - self.persistent - self.constant - self.step * steps
        return room / each if each > 0 else float("inf")


@dataclass(frozen=True)
class Fit:
    """What the fit stage found, and how."""

    size: Size
    decided_by: str
    why: str
    predicted: float | None
    measured: float | None
    limit: float | None
    """Bytes that training may use, before the reserve."""
    limit_source: str
    reserve: float
    rate: float | None
    unit: str
    workers: int
    surface: Surface | None
    frontier: list[Point] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)

    @property
    def usable(self) -> float | None:
        """Bytes that a size may use."""
        return None if self.limit is None else self.limit * (1 - self.reserve)

    def share(self, count: float | None) -> float | None:
        """Bytes as a share of the limit."""
        return None if count is None or not self.limit else count / self.limit

    @property
    def bptts(self) -> list[int]:
        """Every bptt that was tried or considered, ascending; empty without sequences."""
        sizes = [self.size, *(p.size for p in self.probes), *(p.size for p in self.frontier)]
        return sorted({size.bptt for size in sizes if size.bptt})

    def at_choice(self) -> list[Probe]:
        """Probes of the chosen size that got through, the most telling first: the soak is training as it runs."""
        found = [probe for probe in self.probes if probe.size == self.size and not probe.failed]
        return [probe for probe in found if probe.soak] + [probe for probe in found if not probe.soak]


def parse(record: Row) -> Fit | None:
    """The record's facts; None if they do not say which size was chosen."""
    facts = section(record, "facts")
    size = _size(facts)
    if size is None:
        return None
    reserve = finite(facts.get("reserve"))
    return Fit(
        size=size,
        decided_by=str(facts.get("decided_by") or "unknown"),
        why=" ".join(str(facts.get("why") or record.get("message") or "").split()),
        predicted=_bytes(facts.get("predicted")) or None,
        measured=_bytes(facts.get("measured")) or None,
        limit=_bytes(facts.get("limit")) or None,
        limit_source=str(facts.get("limit_source") or ""),
        reserve=reserve if reserve is not None and 0 <= reserve < 1 else 0.0,
        rate=_rate(facts.get("rate")),
        unit=str(facts.get("unit") or "units"),
        workers=_whole(facts.get("workers")) or 1,
        surface=_surface(section(facts, "surface")),
        frontier=[point for row in _rows(facts, "frontier") if (point := _point(row))],
        probes=[probe for row in _rows(facts, "probes") if (probe := _probe(row))],
    )


def _rows(facts: Row, key: str) -> list[Row]:
    value = facts.get(key)
    return [row for row in value[:MANY] if isinstance(row, dict)] if isinstance(value, list) else []


def _size(row: Row) -> Size | None:
    batch = _whole(row.get("batch"))
    return None if batch is None else Size(batch, _whole(row.get("bptt")))


def _surface(row: Row) -> Surface | None:
    values = {name: _bytes(row.get(name)) for name in Surface.__dataclass_fields__}
    known = {name: value for name, value in values.items() if value is not None}
    return Surface(**known) if len(known) == len(values) else None


def _point(row: Row) -> Point | None:
    size = _size(row)
    if size is None:
        return None
    words = str(row.get("known") or "unknown"), str(row.get("limited_by") or "unknown")
    return Point(size, _bytes(row.get("bytes")), _rate(row.get("rate")), *words)


def _probe(row: Row) -> Probe | None:
    size = _size(row)
    if size is None:
        return None
    other = _bytes(row.get("other")) or 0.0
    highest = max(_bytes(row.get("peak")) or 0.0, _bytes(row.get("fixed")) or 0.0)
    seconds, units = finite(row.get("seconds")), finite(row.get("units"))
    timeline = row.get("timeline")
    return Probe(
        size=size,
        soak=row.get("purpose") == "soak",
        failed=" ".join(str(row.get("failed") or "").split()),
        finite=row.get("finite") is not False,
        retries=_whole(row.get("retries")) or 0,
        highest=highest + other if highest else None,
        rate=_rate(units / seconds) if units and seconds and seconds > 0 else None,
        other=other,
        phases=_counts(row.get("phases")),
        parts=_counts(row.get("parts")),
        timeline=[moment for one in timeline if (moment := _moment(one))] if isinstance(timeline, list) else [],
    )


def _moment(row: object) -> dict[str, float] | None:
    """One moment of a timeline: its time, and the bytes of each part that is known by name."""
    if not isinstance(row, dict) or (seconds := finite(row.get("seconds"))) is None:
        return None
    return {"seconds": seconds} | {part: _bytes(row.get(part)) or 0.0 for part in PARTS}


def _counts(value: object) -> dict[str, float]:
    """Bytes by name; a dozen at most."""
    if not isinstance(value, dict):
        return {}
    counts = {str(name): _bytes(count) for name, count in list(value.items())[:12]}
    return {name: count for name, count in counts.items() if count is not None}


def _bytes(value: object) -> float | None:
    count = finite(value)
    return count if count is not None and 0 <= count <= MOST_BYTES else None


def _rate(value: object) -> float | None:
    rate = finite(value)
    return rate if rate is not None and 0 < rate < 1e15 else None


def _whole(value: object) -> int | None:
    count = finite(value)
    return int(count) if count is not None and 1 <= count <= MOST_ROWS and count.is_integer() else None
