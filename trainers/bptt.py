"""How text lies in parallel streams, and where they are cut: pure, and the same on all ranks."""

from __future__ import annotations

import random
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from jobs.spec_language import BpttJitter

Array = npt.NDArray[np.generic]


@lru_cache(maxsize=4096)
def cuts(tokens: int, bptt: int, jitter: BpttJitter | None, seed: int, epoch: int) -> tuple[int, ...]:
    """Lengths of an epoch's sequences, which add up to `tokens` of one stream; a pure function of its arguments.

    With jitter each length is normal around bptt, or with `half_share` around half of it, not below
    `min_steps` and never above bptt + max_extra. Without, all are bptt. The last takes what is left.
    """
    draw = random.Random(f"bptt {seed} {epoch}")
    lengths: list[int] = []
    left = tokens
    while left > 0:
        length = min(left, bptt if jitter is None else _jittered(bptt, jitter, draw))
        lengths.append(length)
        left -= length
    return tuple(lengths)


def rate_scale(length: int, bptt: int, jitter: BpttJitter | None) -> float:
    """Factor on the learning rate of a sequence: its length over bptt; 1 where sequences are cut evenly."""
    return 1.0 if jitter is None else length / bptt


def pieces(begin: int, end: int, truncation: int | None) -> list[tuple[int, int]]:
    """A sequence as stretches through which gradients flow: as equal as can be, none longer than `truncation`."""
    count = 1 if truncation is None else -(-(end - begin) // truncation)
    marks = [begin + (end - begin) * number // count for number in range(count + 1)]
    return list(pairwise(marks))


def longest(bptt: int, jitter: BpttJitter | None) -> int:
    """The longest sequence that can occur: what memory must hold."""
    return bptt if jitter is None else bptt + jitter.max_extra


def _jittered(bptt: int, jitter: BpttJitter, draw: random.Random) -> int:
    mean = bptt / 2 if draw.random() < jitter.half_share else bptt
    return min(max(jitter.min_steps, int(draw.gauss(mean, jitter.std))), longest(bptt, jitter))


def streams(tokens: Array, per_stream: int, rows: slice) -> Array:
    """Some rows of the tokens laid out as parallel streams, int32 [per_stream + 1, rows], time first.

    Stream g is tokens[g * per_stream :], one more than its length, so that x = s[a:b] and
    y = s[a+1 : b+1] are views. What lies behind the last token is 0.
    """
    laid = np.zeros((per_stream + 1, rows.stop - rows.start), dtype=np.int32)
    for column, stream in enumerate(range(rows.start, rows.stop)):
        part = tokens[stream * per_stream : (stream + 1) * per_stream + 1]
        laid[: len(part), column] = part
    return laid


def counted(targets: int, per_stream: int, rows: slice) -> Array:
    """Which targets of `streams` are real, bool [per_stream, rows]: padding behind the last one is not."""
    position = np.arange(per_stream)[:, None] + per_stream * np.arange(rows.start, rows.stop)[None, :]
    real: Array = position < targets
    return real
