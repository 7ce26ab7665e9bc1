"""Where a run is and what its rate is there: pure functions of numbers, so that a resume needs no state."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from jobs.spec import LayerGroups, Schedule


@dataclass(frozen=True)
class Plan:
    """The optimizer steps of each epoch, cut off at the last step of the run."""

    epochs: tuple[int, ...]

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """Steps done at the end of each epoch."""
        return tuple(accumulate(self.epochs))

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._ends[-1] if self._ends else 0

    def epoch_of(self, step: int) -> int:
        """Number of epochs that are complete after `step` steps."""
        return bisect_right(self._ends, step)

    def ends_epoch(self, step: int) -> bool:
        """Whether the step with this number (1-based) is the last of an epoch."""
        return step > 0 and self.first_step(self.epoch_of(step)) == step

    def first_step(self, epoch: int) -> int:
        """Steps done when the epoch begins."""
        return self._ends[epoch - 1] if epoch else 0

    def remaining(self, step: int) -> Iterator[tuple[int, int, int]]:
        """(epoch, step within it to begin at, steps to take) from `step` on to the end of the run."""
        for epoch in range(self.epoch_of(step), len(self.epochs)):
            start = max(0, step - self.first_step(epoch))
            yield epoch, start, self.epochs[epoch] - start


def plan_for(epochs: int | None, steps: int | None, steps_in_epoch: Callable[[int], int]) -> Plan:
    """The plan of a run of so many epochs, or of so many steps. Every epoch has at least one step."""
    if epochs is not None:
        return Plan(tuple(steps_in_epoch(epoch) for epoch in range(epochs)))
    if steps is None:
        raise ValueError("a plan needs epochs or steps")
    lengths: list[int] = []
    left = steps
    while left > 0:
        lengths.append(min(left, steps_in_epoch(len(lengths))))
        left -= lengths[-1]
    return Plan(tuple(lengths))


def rate_at(schedule: Schedule, peak: float, step: int, steps: int) -> float:
    """Learning rate of the step with this number (0-based) in a run of `steps` steps.

    One-cycle follows Smith 2018 (arXiv:1803.09820) with cosine ramps: from peak / start_divisor up to
    peak over the first `warmup_share` of the steps, then down to peak / end_divisor at the last one.
    """
    if schedule.kind == "constant":
        return peak
    warmup = schedule.warmup_share * (steps - 1)
    if step < warmup:
        return _cosine(peak / schedule.start_divisor, peak, step / warmup)
    rest = max(1.0, steps - 1 - warmup)
    return _cosine(peak, peak / schedule.end_divisor, min(1.0, (step - warmup) / rest))


def trained_groups(layers: LayerGroups, groups: int, step: int, steps: int) -> int:
    """How many of the layer groups, counted from the output, the step with this number (0-based) trains.

    Gradual thawing spreads the groups evenly: the i-th of n frozen ones follows at share (i / n) x thaw_share
    (Howard & Ruder 2018, section 3.3).
    """
    trained = groups - layers.frozen
    if layers.thaw_share is None or layers.frozen == 0:
        return trained
    if not layers.gradual:
        return groups if step >= layers.thaw_share * steps else trained
    every = layers.thaw_share * steps / layers.frozen
    return groups if every == 0 else min(groups, trained + int(step / every))


def _cosine(start: float, end: float, share: float) -> float:
    """From start to end along half a cosine wave; `share` runs from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
