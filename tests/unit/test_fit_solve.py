"""Formulas from readings: what is solved, what is proven, and that a proof is never wrong."""

from __future__ import annotations

import random

import numpy as np
import pytest

from trainers.fit.admissible import Proof, maximum
from trainers.fit.sizes import Reading, Size, Surface
from trainers.fit.solve import nonnegative, solve_clock, solve_surface

MIB = 2**20


def reading(batch: int, bptt: int | None, peak: float, seconds: float = 0.0, **more: int) -> Reading:
    units = batch * (bptt or 1)
    return Reading(Size(batch, bptt), persistent=100, fixed=150, peak=int(peak), seconds=seconds, units=units, **more)


def on(surface: Surface, *sizes: tuple[int, int]) -> list[Reading]:
    """Readings that lie on a surface."""
    return [reading(b, t, surface.highest(Size(b, t))) for b, t in sizes]


def test_least_squares_finds_what_made_the_right_side_and_nothing_negative() -> None:
    draw = np.random.default_rng(3)
    for _ in range(50):
        matrix, wanted = draw.random((9, 5)), draw.random(5) * (draw.random(5) > 0.4)
        assert nonnegative(matrix, matrix @ wanted) == pytest.approx(wanted, abs=1e-6)
        assert (nonnegative(matrix, draw.normal(size=9)) >= 0).all()


def test_one_reading_makes_growth_proportional() -> None:
    surface = solve_surface([reading(10, 20, 300)])
    assert (surface.persistent, surface.fixed) == (100, 150)
    assert surface.highest(Size(20, 20)) == pytest.approx(500)
    assert surface.highest(Size(10, 40)) == pytest.approx(500)
    assert surface.highest(Size(1, 1)) == 150
    assert solve_surface([reading(10, None, 300)]).highest(Size(30)) == pytest.approx(700)


def test_readings_on_a_surface_give_it_back() -> None:
    truth = Surface(persistent=100, constant=5000, row=40, step=30, cell=7)
    solved = solve_surface(on(truth, (8, 16), (64, 16), (8, 128), (32, 64), (50, 100)))
    for size in (Size(100, 200), Size(4, 300), Size(300, 8)):
        assert solved.highest(size) == pytest.approx(truth.highest(size), rel=0.02)


def test_a_term_in_bptt_squared_comes_where_readings_demand_it() -> None:
    truth = Surface(persistent=100, cell=10, square=3)
    sizes = ((8, 16), (64, 16), (8, 128), (32, 64), (4, 256))
    assert solve_surface(on(truth, *sizes)).square == pytest.approx(3, rel=0.05)
    assert solve_surface(on(Surface(persistent=100, cell=10), *sizes)).square == 0


def test_an_estimate_gives_one_reading_its_shape_and_the_reading_the_scale() -> None:
    prior = Surface(persistent=100, constant=1000, cell=1)
    solved = solve_surface([reading(10, 10, 100 + 2 * 1100)], prior)
    assert solved.highest(Size(20, 10)) == pytest.approx(100 + 2 * 1200, rel=0.05)


def test_the_clock_tells_time_steps_from_rows() -> None:
    def timed(b: int, t: int) -> Reading:
        return reading(b, t, 300, seconds=0.1 + 0.01 * t + 1e-4 * b * t)

    clock = solve_clock([timed(8, 16), timed(64, 16), timed(8, 128), timed(32, 64), timed(16, 32)])
    assert clock.seconds(Size(100, 50)) == pytest.approx(0.1 + 0.5 + 0.5, rel=0.02)
    assert clock.rate(Size(100, 50)) == pytest.approx(5000 / 1.1, rel=0.02)
    assert solve_clock([reading(8, 16, 300)]).rate(Size(1, 1)) == 0
    assert solve_clock([timed(8, 16)]).rate(Size(64, 4)) == pytest.approx(timed(8, 16).rate)


def test_one_reading_proves_what_is_proportional_to_the_rows() -> None:
    proof = Proof([reading(10, None, 300)])
    assert proof.highest(Size(20)) == pytest.approx(500)
    assert proof.largest_batch(None, 500) == 20
    assert proof.largest_batch(None, 499) == 19
    assert proof.largest_batch(None, 500, most=12) == 12
    assert proof.largest_batch(None, 140) == 0, "the optimizer's phase alone needs 150"


def test_a_factor_in_bptt_may_cost_its_square_until_readings_say_otherwise() -> None:
    one = [reading(8, 16, 300)]
    assert Proof(one).highest(Size(8, 32)) == pytest.approx(100 + 4 * 200)
    assert Proof(one).largest_batch(32, 500) == 4
    more = [*one, reading(2, 64, 300)]
    assert Proof(more).highest(Size(8, 32)) == pytest.approx(100 + 2 * 200)
    assert Proof(one).highest(Size(8, 8)) <= 300, "less of everything never needs more"


def test_growth_of_what_should_not_grow_counts_as_growth() -> None:
    proof = Proof([reading(10, None, 300, other=10), reading(20, None, 300, other=210)])
    assert proof.highest(Size(40)) == pytest.approx(110 + 2 * 400)


def test_the_bound_holds_for_the_worst_of_many_moments() -> None:
    draw = random.Random(5)
    for _ in range(40):
        moments = [[draw.expovariate(1) for _ in range(5)] for _ in range(4)]

        def peak(b: int, t: int, moments: list[list[float]] = moments) -> float:
            return 100 + max(m[0] * 500 + m[1] * b + m[2] * t + m[3] * b * t + m[4] * b * t * t / 50 for m in moments)

        sizes = [(draw.randint(1, 64), draw.randint(1, 64)) for _ in range(draw.randint(1, 6))]
        # Readings are whole bytes, so the bound may be a byte a reading too low before it is scaled.
        proof = Proof([reading(b, t, peak(b, t) + 1) for b, t in sizes])
        for b, t in ((draw.randint(1, 500), draw.randint(1, 500)) for _ in range(20)):
            assert proof.highest(Size(b, t)) >= peak(b, t)
            batch = proof.largest_batch(t, 5000)
            assert batch == 0 or peak(batch, t) <= 5000
            assert proof.highest(Size(batch + 1, t)) > 5000 or batch + 1 > 64 * max(x * y for x, y in sizes) // t


def test_the_linear_program_agrees_with_a_search_over_its_corners() -> None:
    draw = np.random.default_rng(2)
    for _ in range(30):
        goal, rows, right = draw.random(2), draw.random((4, 2)) + 0.1, draw.random(4)
        lines = [*zip(rows, right, strict=True), (np.array([1.0, 0.0]), 0.0), (np.array([0.0, 1.0]), 0.0)]
        corners = [np.linalg.solve([a, b], [x, y]) for i, (a, x) in enumerate(lines) for b, y in lines[i + 1 :]]
        inside = [c for c in corners if (c >= -1e-9).all() and (rows @ c <= right + 1e-9).all()]
        found = maximum(goal.tolist(), rows.tolist(), right.tolist())
        assert goal @ found == pytest.approx(max(goal @ corner for corner in inside))
