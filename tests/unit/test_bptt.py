"""Streams hold every token once, in order; cuts are pure, bounded and add up."""

import statistics

import numpy as np
import pytest

from jobs.spec_language import BpttJitter
from trainers.bptt import counted, cuts, longest, rate_scale, streams

JITTER = BpttJitter()


@pytest.mark.parametrize("tokens", [1, 4, 69, 70, 1000, 17_171])
@pytest.mark.parametrize("jitter", [None, JITTER, BpttJitter(half_share=1.0, std=0.0, max_extra=0)])
def test_cuts_add_up_and_stay_in_their_bounds(tokens: int, jitter: BpttJitter | None) -> None:
    lengths = cuts(tokens, 70, jitter, 3, 1)
    assert sum(lengths) == tokens
    assert max(lengths) <= longest(70, jitter)
    assert all(length >= (JITTER.min_steps if jitter else 70) for length in lengths[:-1])


def test_cuts_are_a_pure_function_of_seed_and_epoch() -> None:
    first = cuts(10_000, 70, JITTER, 3, 1)
    cuts.cache_clear()
    assert cuts(10_000, 70, JITTER, 3, 1) == first
    assert cuts(10_000, 70, JITTER, 3, 2) != first
    assert cuts(10_000, 70, JITTER, 4, 1) != first
    assert first[:4] == cuts(5_000, 70, JITTER, 3, 1)[:4]


def test_jitter_has_the_stated_mean_deviation_and_share_of_halves() -> None:
    lengths = cuts(700_000, 70, BpttJitter(half_share=0.2, std=3.0, max_extra=30), 0, 0)[:-1]
    halves = [length for length in lengths if length < 52]
    wholes = [length for length in lengths if length >= 52]
    assert abs(len(halves) / len(lengths) - 0.2) < 0.02
    assert abs(statistics.mean(halves) - 34.5) < 0.5
    assert abs(statistics.mean(wholes) - 69.5) < 0.5
    assert abs(statistics.stdev(wholes) - 3.0) < 0.2


def test_a_bptt_below_the_shortest_length_is_never_exceeded() -> None:
    assert set(cuts(100, 2, BpttJitter(max_extra=0, std=50.0), 0, 0)) == {2}


def test_rate_follows_the_length_only_with_jitter() -> None:
    assert rate_scale(35, 70, JITTER) == 0.5
    assert rate_scale(35, 70, None) == 1.0


def test_streams_hold_every_token_once_in_order_and_the_one_after() -> None:
    laid = streams(np.arange(32), 10, slice(0, 3))
    assert np.array_equal(laid[:-1].T.ravel(), np.arange(30))
    assert np.array_equal(laid[1:].T.ravel(), np.arange(1, 31))


def test_padded_streams_count_every_target_once() -> None:
    targets, groups = 31, 7
    per_stream = -(-targets // groups)
    seen: list[int] = []
    for first in range(0, groups, 1):
        rows = slice(first, first + 1)
        laid, real = streams(np.arange(targets + 1), per_stream, rows), counted(targets, per_stream, rows)
        seen += laid[1:][real].tolist()
    assert seen == list(range(1, 32))


def test_more_streams_than_targets_leaves_some_empty() -> None:
    assert counted(3, 1, slice(0, 8)).sum() == 3
    assert streams(np.arange(4), 1, slice(0, 8)).shape == (2, 8)
