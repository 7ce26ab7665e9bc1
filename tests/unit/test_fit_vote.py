"""Readings of several real ranks become one, the worst of each number, on all of them alike."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.errors import Reason
from trainers.backend import Processes
from trainers.fit.sizes import Reading, Size
from trainers.fit.vote import ranks_here, smallest, vote
from trainers.group import Alone, Group

from .tiny import tiny_spec

SIZE = Size(8, 16)


@dataclass(frozen=True)
class Voting:
    """Every rank votes with its own reading and writes down what came out."""

    folder: str
    readings: tuple[Reading, ...]
    leaving: int | None = None
    name: str = "votes"
    attempt: int = 1

    def run(self, group: Group, device: torch.device, preempted: Callable[[], bool]) -> Any:
        voted = vote(group, self.readings[group.rank], leaving=group.rank == self.leaving)
        rest = (smallest(group, 100 - group.rank), ranks_here(group))
        Path(self.folder, f"rank-{group.rank}").write_bytes(pickle.dumps((voted, rest)))
        return voted


def votes(folder: Path, *readings: Reading, leaving: int | None = None) -> tuple[Reading, bool]:
    job = Voting(str(folder), readings, leaving)
    value: tuple[Reading, bool] = Processes(start="fork").run(
        job, tiny_spec(folder, workers=len(readings)), lambda: False
    )
    told = [pickle.loads((folder / f"rank-{rank}").read_bytes()) for rank in range(len(readings))]
    assert all(one == told[0] for one in told)
    assert told[0][1] == (100 - len(readings) + 1, len(readings))
    return value


def test_the_worst_of_each_number_counts(tmp_path: Path) -> None:
    one = Reading(SIZE, persistent=10, peak=100, fixed=5, other=1, seconds=0.5, units=128, parts={"weights": 3})
    two = Reading(SIZE, persistent=12, peak=90, fixed=7, other=0, seconds=0.25, units=128, finite=False)
    voted, leave = votes(tmp_path, one, two)
    assert not leave
    assert (voted.persistent, voted.peak, voted.fixed, voted.other, voted.seconds) == (12, 100, 7, 1, 0.5)
    assert (voted.finite, voted.failed, voted.parts["weights"]) == (False, "", 3)


def test_one_failure_is_the_failure_of_all_with_its_sentence(tmp_path: Path) -> None:
    good = Reading(SIZE, peak=100, units=128)
    bad = Reading(SIZE, failed="asked for 5 MiB \u2013 none left", reason=Reason.OUT_OF_MEMORY.value)
    worse = Reading(SIZE, failed="something else", reason=Reason.USER_CODE.value)
    voted, _ = votes(tmp_path, good, bad, worse)
    assert voted.failed == "worker 1: asked for 5 MiB \u2013 none left"
    assert voted.reason == "out_of_memory"


def test_one_rank_that_wants_to_leave_takes_all_along(tmp_path: Path) -> None:
    assert votes(tmp_path, Reading(SIZE), Reading(SIZE), leaving=1)[1]


def test_a_rank_alone_agrees_with_itself() -> None:
    reading = Reading(SIZE, failed="no", reason="out_of_memory", peak=7)
    voted, leave = vote(Alone(), reading)
    assert (voted.failed, voted.peak, leave) == ("no", 7, False)
    assert ranks_here(Alone()) == 1
