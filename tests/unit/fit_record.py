"""Plausible records of the fit stage, for tests of what shows them: with bptt, and without."""

from __future__ import annotations

import math

from jobs.rundir import Row

MIB = 2**20
LIMIT = 512 * MIB
USABLE = 0.96 * LIMIT
SURFACE: Row = {
    "persistent": 64.0 * MIB, "fixed": 96.0 * MIB, "other": 22.0 * MIB, "constant": 1.5 * MIB,
    "row": 0.05 * MIB, "step": 0.02 * MIB, "cell": 0.085 * MIB, "square": 0.0,
}  # fmt: skip


def mark(batch: int, bptt: int | None) -> float:
    """What the surface says of a size."""
    s, steps = SURFACE, bptt or 1
    grown = s["constant"] + s["step"] * steps + (s["row"] + s["cell"] * steps) * batch
    return float(s["other"] + max(s["fixed"], s["persistent"] + grown))


def rate(batch: int, bptt: int | None) -> float:
    """Units per second: calls cost, and a long bptt falls out of the cache."""
    cells = batch * (bptt or 1)
    return cells / (0.02 + cells / 4200 * (1 + (bptt or 1) / 3000))


def probe(batch: int, bptt: int | None, purpose: str = "probe", **changes: object) -> Row:
    """What running one size measured."""
    high = mark(batch, bptt) - SURFACE["other"]
    units = batch * (bptt or 1)
    row: Row = {
        "purpose": purpose, "batch": batch, "bptt": bptt, "failed": "", "reason": "", "persistent": 64 * MIB,
        "fixed": 96 * MIB, "peak": int(high), "other": 22 * MIB, "seconds": units / rate(batch, bptt), "units": units,
        "finite": True, "retries": 0, "timeline": [],
        "phases": {"forward": int(0.9 * high), "backward": int(high), "optimizer": 96 * MIB, "evaluation": 90 * MIB,
                   "save": 70 * MIB},
        "parts": {"weights": 16 * MIB, "gradients": 9 * MIB, "optimizer": 32 * MIB, "buckets": 16 * MIB,
                  "data": 2 * MIB, "activations": int(high) - 75 * MIB},
    }  # fmt: skip
    return row | changes


def timeline(batch: int, bptt: int | None, moments: int = 240) -> list[Row]:
    """A step: forward, backward, update."""
    high = mark(batch, bptt) - SURFACE["other"] - 66 * MIB
    rows: list[Row] = []
    for i in range(moments):
        at = i / (moments - 1)
        grown = at / 0.4 if at < 0.4 else max(0.0, 1 - (at - 0.4) / 0.5)
        wave = 1 + 0.04 * math.sin(i * 1.7)
        rows.append({
            "seconds": 0.31 * at, "weights": 16 * MIB, "optimizer": 32 * MIB, "buckets": 16 * MIB, "data": 2 * MIB,
            "gradients": 16 * MIB * min(max((at - 0.42) / 0.45, 0), 1) if at < 0.97 else 0,
            "activations": min(high * grown * wave, high - 9 * MIB) if at < 0.92 else 16 * MIB * (at < 0.97),
        })  # fmt: skip
    return rows


def record(**facts: object) -> Row:
    """A record with these facts."""
    message = f"batch {facts['batch']} per worker: {facts['why']}"
    return {"stage": "fit", "time": 1_782_000_004.5, "seconds": 31.2, "message": message, "facts": facts}


def largest(bptt: int) -> int:
    """The largest batch that the surface admits."""
    return next(batch for batch in range(4000, 0, -1) if mark(batch, bptt) <= USABLE)


def a_fit() -> Row:
    """A search in two dimensions that memory decided."""
    bptts = (16, 24, 32, 48, 70, 100, 140, 200, 280)
    frontier = [
        {"batch": largest(t), "bptt": t, "bytes": mark(largest(t), t), "rate": rate(largest(t), t),
         "known": "measured" if t in (70, 140) else "inferred", "limited_by": "memory"}
        for t in bptts
    ]  # fmt: skip
    size = {"batch": largest(140), "bptt": 140}
    tried = [(8, 70), (24, 70), (largest(70), 70), (10, 280), (largest(140), 140), (40, 100)]
    refused = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 47600000 bytes"
    probes = [probe(batch, bptt) for batch, bptt in tried]
    probes[2] |= {"failed": refused, "peak": 0, "fixed": 0, "seconds": 0.0}
    probes[4] |= {"peak": int(mark(**size) * 1.004 - 22 * MIB)}
    probes.append(probe(**size, purpose="soak", timeline=timeline(**size)))
    why = f"batch {size['batch']} is the largest whose memory stays below the limit at bptt 140"
    return record(
        **size, workers=2, accumulation=1, decided_by="memory", why=why, predicted=mark(**size),
        measured=int(mark(**size) * 1.004), limit=LIMIT, limit_source="memory_limit_mib", reserve=0.04,
        rate=rate(**size), unit="tokens", surface=SURFACE, frontier=frontier, probes=probes,
    )  # fmt: skip


def a_line() -> Row:
    """A search without sequences that the data decided; no timeline was kept."""
    probes = [probe(batch, None) for batch in (64, 800, 2400)]
    probes += [probe(3600, None, failed="it needs 12.0 MiB more than the limit"), probe(2400, None, "soak")]
    return record(
        batch=2400, bptt=None, workers=1, accumulation=1, decided_by="data",
        why="with a larger batch an epoch would have fewer than 100 optimizer steps", predicted=mark(2400, None),
        measured=int(mark(2400, None)), limit=LIMIT, limit_source="free memory of the machine", reserve=0.04,
        rate=rate(2400, None), unit="images", surface=SURFACE, frontier=[], probes=probes,
    )  # fmt: skip
