"""How large a batch may be before memory is asked: what the user, the data and refusals allow. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainers.fit.sizes import Decided, Limits, Size

#: Rows from which a batch found by fit is even, so that it can be halved, and a multiple of 8, which suits kernels.
EVEN_FROM = 8
EIGHTS_FROM = 256


@dataclass(frozen=True)
class Wall:
    """A size that was refused: every size with at least its rows and at least its time steps is out."""

    size: Size
    why: Decided

    def stands_before(self, bptt: int | None) -> bool:
        """Whether it limits the batch at this bptt."""
        return (bptt or 1) >= (self.size.bptt or 1)


def rounded(batch: int, lowest: int) -> int:
    """The batch, made even from 8 rows on and a multiple of 8 from 256 on, but never more and not below `lowest`."""
    unit = 8 if batch >= EIGHTS_FROM else 2 if batch >= EVEN_FROM else 1
    return max(batch // unit * unit, min(batch, lowest))


def ceiling(limits: Limits, bptt: int | None, walls: Iterable[Wall]) -> tuple[int | None, Decided]:
    """The largest batch that may be tried at a bptt, and what says so; 0 if none, None if only memory limits it."""
    caps: list[tuple[int, Decided]] = []
    if limits.cells_max is not None:
        caps.append((_data(limits, bptt, limits.cells_max), "data"))
    for wall in walls:
        if wall.stands_before(bptt):
            caps.append((_floor(wall.size.batch - 1, limits), wall.why))
    if limits.batch_max is not None:
        caps.append((limits.batch_max, "user"))
    if not caps:
        return None, "memory"
    return min(caps, key=lambda cap: cap[0])


def _data(limits: Limits, bptt: int | None, cells: int) -> int:
    """Rows that the data allows; the smallest size of all stays allowed, as something has to be trained."""
    batch = _floor(cells // (bptt or 1), limits)
    return limits.batch_min if batch == 0 and bptt == limits.bptts[0] else batch


def _floor(batch: int, limits: Limits) -> int:
    return rounded(batch, limits.batch_min) if batch >= limits.batch_min else 0
