"""One reading of all ranks: the worst of each number, the same everywhere, so that all ranks search alike.

A probe runs without any other rank (its model is wrapped alone), so a rank that runs out of memory, or that
dies in a backward pass, cannot leave the others waiting: they meet here afterwards, and only here.
"""

from __future__ import annotations

import socket
import zlib
from dataclasses import replace

import torch

from jobs.errors import Reason
from trainers.fit.sizes import Reading
from trainers.group import Group

#: Numbers of a reading of which the largest counts. `units` is the same on all ranks.
WORST = ("persistent", "fixed", "peak", "other", "seconds", "units", "retries")
PHASES = ("forward", "backward", "optimizer", "evaluation", "save")
PARTS = ("weights", "gradients", "optimizer", "buckets", "data", "activations")
SENTENCE = 400
"""Bytes of a failure's sentence that travel."""
REASONS = tuple(Reason)


def vote(group: Group, reading: Reading, leaving: bool = False) -> tuple[Reading, bool]:
    """The worst of all ranks' readings of one size, and whether any rank wants to leave. Collective.

    A failure on any rank is the failure of all, with the sentence of the first rank that failed.
    """
    failed = group.world_size - group.rank if reading.failed else 0
    numbers = [float(getattr(reading, name)) for name in WORST]
    numbers += [float(reading.phases.get(name, 0)) for name in PHASES]
    numbers += [float(reading.parts.get(name, 0)) for name in PARTS]
    numbers += [float(not reading.finite), float(leaving), float(failed)]
    agreed = group.reduce(torch.tensor(numbers, dtype=torch.float64), "max").tolist()
    *worst, infinite, leave, first = agreed
    counts = iter(worst)
    number = {name: next(counts) for name in WORST}
    phases, parts = {name: int(next(counts)) for name in PHASES}, {name: int(next(counts)) for name in PARTS}
    voted = replace(
        reading,
        persistent=int(number["persistent"]),
        fixed=int(number["fixed"]),
        peak=int(number["peak"]),
        other=int(number["other"]),
        seconds=number["seconds"],
        units=int(number["units"]),
        retries=int(number["retries"]),
        finite=not infinite,
        phases=phases,
        parts=parts,
    )
    if first:
        speaker = int(group.world_size - first)
        text, reason = _said(group, reading, speaker)
        voted = replace(voted, failed=text, reason=reason)
    return voted, bool(leave)


def smallest(group: Group, value: int) -> int:
    """The smallest of all ranks' values. Collective."""
    return -int(group.reduce(torch.tensor([-float(value)], dtype=torch.float64), "max").item())


def ranks_here(group: Group) -> int:
    """How many ranks run on this rank's host, itself included: they share its memory. Collective."""
    hosts = torch.zeros(group.world_size, dtype=torch.float64)
    hosts[group.rank] = 1 + zlib.crc32(socket.gethostname().encode())
    all_hosts = group.reduce(hosts).tolist()
    return all_hosts.count(all_hosts[group.rank])


def _said(group: Group, reading: Reading, speaker: int) -> tuple[str, str]:
    """The failure's sentence and reason as one rank has them, carried as numbers: a group only adds and compares."""
    said = torch.zeros(SENTENCE + 1, dtype=torch.float64)
    if group.rank == speaker:
        where = f"worker {speaker}: " if group.world_size > 1 else ""
        text = (where + reading.failed).encode()[:SENTENCE]
        said[: len(text)] = torch.tensor(list(text), dtype=torch.float64)
        said[-1] = REASONS.index(Reason(reading.reason or Reason.OUT_OF_MEMORY))
    *codes, reason = (int(code) for code in group.reduce(said, "max").tolist())
    return bytes(code for code in codes if code).decode(errors="ignore"), REASONS[reason].value
