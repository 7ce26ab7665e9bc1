"""One sweep of a range test, and what its curve says: level, lowest point, bracket. Pure; knows no torch.

Seed: raise the rate after each mini-batch until the loss gets worse (Smith 2015, arXiv:1506.01186; fast.ai, lesson 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median
from typing import Any, Literal

WINDOW = 5
"""Losses that a running median looks at: it removes single odd batches, and lags behind nothing."""
LEVEL_SHARE = 0.15
"""Share of a sweep, at its start, over which the loss is taken to stand still: what it was before anything changed."""
DROP_SHARE = 0.1
"""Share of the whole drop from which on the rate is said to do something."""
BACK_SHARE = 0.5
"""Share of the whole drop that, once lost again, says that the rate is too high."""
GAIN_SHARE = 0.25
"""Share of all that a sweep ever gains which must be gained before losing it says anything: less is chance."""

Ended = Literal["highest", "worse", "not finite"]
"""Why a sweep ended: at its highest rate, at a loss far above the best one, at a loss that is not a number."""


@dataclass(frozen=True)
class Bracket:
    """Rates between which training works: it begins to learn, it is at its lowest, it has become worse again."""

    low: float
    lowest: float
    diverged: float


@dataclass(frozen=True)
class Sweep:
    """A range test: the loss at each rate, finite, in the order in which they were run."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    ended: Ended
    seed: int = 0

    @cached_property
    def smooth(self) -> tuple[float, ...]:
        """The losses under a running median."""
        return running_median(self.losses)

    @cached_property
    def level(self) -> float:
        """The loss before the rate did anything."""
        return median(self.losses[: max(3, round(LEVEL_SHARE * len(self.losses)))])

    @cached_property
    def worse(self) -> int | None:
        """The first place where half of what had been gained is lost again; None if it never is.

        What comes after it does not count: a rate that is too high may still, with time, find its way down again.
        """
        best = self.level
        enough = max(self._chance, GAIN_SHARE * (self.level - min(self.smooth)))
        for i, loss in enumerate(self.smooth):
            best = min(best, loss)
            gained = self.level - best
            if gained > enough and loss > best + BACK_SHARE * gained:
                return i
        return None

    @cached_property
    def at(self) -> int:
        """Where the smoothed loss is the lowest before it became worse."""
        return min(range(len(self.smooth) if self.worse is None else self.worse), key=self.smooth.__getitem__)

    @property
    def drop(self) -> float:
        """How far the loss fell from its level, never below 0."""
        return max(0.0, self.level - self.smooth[self.at])

    @cached_property
    def noise(self) -> float:
        """Spread of single losses about the smoothed curve over the first half: 1.48 x median deviation."""
        until = max(3, len(self.losses) // 2)
        return 1.48 * median(abs(a - b) for a, b in zip(self.losses[:until], self.smooth, strict=False))

    @property
    def tells(self) -> bool:
        """Whether the curve shows more than noise."""
        return len(self.losses) > WINDOW and self.drop > self._chance

    @property
    def _chance(self) -> float:
        """A fall of the loss that says nothing."""
        return max(3 * self.noise, 1e-3 * abs(self.level))

    @property
    def bracket(self) -> Bracket:
        """Where learning begins, is at its lowest and is lost again (the last rate, if it never was)."""
        wanted = self.level - DROP_SHARE * self.drop
        low = next(i for i in range(self.at + 1) if self.smooth[i] <= wanted or i == self.at)
        diverged = len(self.rates) - 1 if self.worse is None else self.worse
        return Bracket(self.rates[low], self.rates[self.at], self.rates[diverged])

    def to_json(self) -> dict[str, Any]:
        """As plain data, the smoothed losses among them: what the report draws is what was decided from."""
        return asdict(self) | {"smooth": self.smooth}


def running_median(values: Sequence[float]) -> tuple[float, ...]:
    """The median of `WINDOW` values around each; at the ends, of those that there are."""
    reach = WINDOW // 2
    return tuple(median(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values)))


def geometric(lowest: float, highest: float, count: int) -> tuple[float, ...]:
    """`count` rates, each the same multiple of the one before."""
    if count < 2:
        return (lowest,)
    ratio = math.log(highest / lowest) / (count - 1)
    return tuple(lowest * math.exp(ratio * i) for i in range(count))
