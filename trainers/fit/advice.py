"""What would make a model fit that does not: candidates and sentences. Pure; numbers are the caller's."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from jobs.spec import AUTO, JobSpec
from jobs.units import size as shown
from trainers.fit.sizes import Size

MIB = 2**20
SHRINKS = (0.75, 0.5, 0.25, 0.125, 1 / 16, 1 / 32, 1 / 64)
"""Shares of a model's width that are tried, the largest first."""
SHORTEST = 4
"""Time steps below which no sequence is worth advising."""


class Device(Protocol):
    """What kind of device a size is asked about."""

    @property
    def gpu(self) -> bool:
        """Whether it is a GPU."""
        ...

    @property
    def bf16(self) -> bool:
        """Whether its hardware computes in bf16."""
        ...


@dataclass(frozen=True)
class Changed:
    """A spec with one thing changed, and the size to ask it about."""

    text: str
    spec: JobSpec
    size: Size


@dataclass(frozen=True)
class Way:
    """A change that was found to make a size fit, and what the size needs with it."""

    text: str
    needed: float
    size: Size | None = None
    """The size that it was asked about."""


def changes(spec: JobSpec, size: Size, target: Device, *, held_fits: bool) -> list[list[Changed]]:
    """Changes that may save memory at this size, the mildest kind first, and of one kind the mildest first.

    The later ones of a kind need less. `held_fits` says whether the budget holds what stays between two steps: if it
    does not, neither precision nor a shorter bptt can help.
    """
    kinds: list[list[Changed]] = []
    if held_fits and (spec.precision == "fp32" or (spec.precision == "auto" and not (target.gpu and target.bf16))):
        half = "bf16" if target.bf16 or not target.gpu else "fp16"
        kinds.append([Changed(f"precision {half}", spec.model_copy(update={"precision": half}), size)])
    if spec.optimizer.kind == "adamw":
        sgd = spec.optimizer.model_copy(update={"kind": "sgd"})
        text = "optimizer.kind sgd (it keeps no moments)"
        kinds.append([Changed(text, spec.model_copy(update={"optimizer": sgd}), size)])
    if held_fits:
        kinds.append(list(_shorter(spec, size)))
    kinds += [_narrower(spec, size, ["hidden"]), _narrower(spec, size, ["embedding"])]
    return [kind for kind in kinds if kind]


def last_resort(spec: JobSpec, size: Size) -> list[Changed]:
    """Changes for a model that no single change makes fit."""
    return _narrower(spec, size, ["hidden", "embedding"])


def ways_out(
    spec: JobSpec,
    size: Size,
    target: Device,
    *,
    usable: float,
    held: float,
    needed: Callable[[Changed], float],
    most: int,
) -> list[Way]:
    """At most so many changes with which a size fits `usable` bytes, as `needed` says; the mildest first.

    `held` is what stays between two steps. `needed` is asked about few candidates, as it may take a while.
    """
    ways: list[Way] = []
    for kind in changes(spec, size, target, held_fits=held <= usable):
        ways += _mildest(kind, usable, needed)
        if len(ways) >= most:
            return ways
    return ways or _mildest(last_resort(spec, size), usable, needed)


def _mildest(kind: Sequence[Changed], usable: float, needed: Callable[[Changed], float]) -> list[Way]:
    first = bisect_left(range(len(kind)), True, key=lambda number: needed(kind[number]) <= usable)
    return [Way(kind[first].text, needed(kind[first]), kind[first].size)] if first < len(kind) else []


def _shorter(spec: JobSpec, size: Size) -> Iterator[Changed]:
    jitter = getattr(spec, "bptt_jitter", None)
    lowest = max(SHORTEST, jitter.min_steps if jitter else 1)
    steps = size.bptt or 0
    while getattr(spec, "bptt", None) != AUTO and (steps := steps // 2) >= lowest:
        yield Changed(f"bptt {steps}", spec.model_copy(update={"bptt": steps}), Size(size.batch, steps))


def _narrower(spec: JobSpec, size: Size, fields: Sequence[str]) -> list[Changed]:
    model = getattr(spec, "model", None)
    widths = {field: width for field in fields if isinstance(width := getattr(model, field, None), int) and width > 1}
    if model is None or len(widths) < len(fields):
        return []
    found = []
    for share in SHRINKS:
        less = {field: max(1, int(width * share)) for field, width in widths.items()}
        text = " with ".join(f"model.{field} {less[field]} instead of {width}" for field, width in widths.items())
        found.append(Changed(text, spec.model_copy(update={"model": model.model_copy(update=less)}), size))
    return found


def raised(needed: float, reserve: float) -> list[Way]:
    """The memory limit that holds what is needed, with the reserve on top."""
    mib = math.ceil(needed / (1 - reserve) / MIB)
    return [Way(f"memory_limit_mib {mib} on a machine that has it", needed)]


def refusal(size: Size, needed: float, budget: float, ways: Sequence[Way]) -> str:
    """Why a size cannot be trained, and at most two ways out, in one sentence."""
    missing = needed - budget
    if missing > 0:
        what = f"{size} needs {shown(needed)}, the limit is {shown(budget)}: {shown(missing)} are missing"
    else:
        what = f"{size} needs {shown(needed)} and the limit is {shown(budget)}, with nothing to spare"
    return f"{what}; try {', or '.join(way.text for way in ways[:2])}"


def smaller(spec: JobSpec, size: Size, usable: float, needed: Callable[[Size], float]) -> str | None:
    """The smallest change of the size alone that fits, and keeps the global batch if that can be; None if none does.

    Fewer rows with more accumulation train the same, a shorter bptt does not.
    """
    rows = next((r for r in _divisors(size.batch) if needed(Size(r, size.bptt)) <= usable), None)
    if rows is not None:
        return f"batch {rows} with accumulation {spec.accumulation * (size.batch // rows)}"
    if size.bptt is None or getattr(spec, "bptt", None) == AUTO:
        return None
    steps = next((t for t in range(size.bptt - 1, 3, -1) if needed(Size(1, t)) <= usable), None)
    return None if steps is None else f"batch 1 with accumulation {spec.accumulation * size.batch} and bptt {steps}"


def _divisors(number: int) -> list[int]:
    """Proper divisors, the largest first."""
    return [part for part in range(number // 2, 0, -1) if number % part == 0]
