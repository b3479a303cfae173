"""The two scalar functions against mpmath-free identities, and their inverses over orders of magnitude."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.allocate.curves import growth, inverse_growth, inverse_psi, psi
from sflam.allocate.roots import bisect, decreasing_root
from tests.allocate.cell.builders import SEEDS

X = np.geomspace(1e-8, 600, 400)


def exact_psi(x: float, terms: int = 60) -> float:
    """psi(x) = sum over n >= 2 of x^n (n - 1) / n!, in rational arithmetic."""
    total, power, factorial, value = Fraction(0), Fraction(1), 1, Fraction(x)
    for n in range(1, terms):
        power, factorial = power * value, factorial * n
        total += power * (n - 1) / factorial
    return float(total)


@pytest.mark.parametrize("x", [1e-9, 1e-5, 3e-3, 0.00999, 0.0101, 0.05, 0.3, 1.0, 4.0])
def test_psi_keeps_its_digits(x: float) -> None:
    assert psi(np.array([x]))[0] == pytest.approx(exact_psi(x), rel=1e-13)


def test_inverses_invert() -> None:
    np.testing.assert_allclose(inverse_psi(psi(X)), X, rtol=1e-13)
    np.testing.assert_allclose(inverse_growth(growth(X[X > 1e-4])), X[X > 1e-4], rtol=1e-10)
    assert inverse_growth(np.array([0.5, 1.0, np.inf])).tolist() == [0, 0, np.inf]
    alone = [inverse_growth(growth(X[X > each]))[0] for each in (1e-3, 0.04, 0.06)]  # by series, and without
    np.testing.assert_allclose(alone, [X[X > each][0] for each in (1e-3, 0.04, 0.06)], rtol=1e-10)


@pytest.mark.parametrize("off", [1e-6, 0.1, 3.0, 1e5])
def test_any_start_finds_the_inverse(off: float) -> None:
    np.testing.assert_allclose(inverse_psi(psi(X), X * off), X, rtol=1e-13)


def test_infinite_prices_have_infinite_efficiency() -> None:
    assert inverse_psi(np.array([1.0, np.inf])).tolist() == [1.0, np.inf]


@pytest.mark.parametrize("start", [-30.0, -1.0, 0.3, 50.0])
def test_a_root_is_found_from_anywhere(start: float) -> None:
    assert decreasing_root(lambda x: 2 - np.exp(0.3 * min(x, 900)), start) == pytest.approx(np.log(2) / 0.3)


def test_without_a_root_the_nearest_end_is_returned() -> None:
    assert decreasing_root(lambda x: -1.0 - x, 0.5, low=0.0, high=1.0) == 0.0
    assert decreasing_root(lambda x: 3.0 - x, 0.5, low=0.0, high=1.0) == 1.0


def test_arrays_of_roots() -> None:
    goal = np.array([-5.0, 0.0, 0.2, 0.9, 7.0])
    found = bisect(lambda x: goal - x**3, np.zeros(5), np.ones(5))
    np.testing.assert_allclose(found, np.clip(np.cbrt(goal), 0, 1), atol=1e-9)


@pytest.mark.parametrize("start", [-500.0, 299.5, 301.0, 590.0])
def test_a_root_between_flat_stretches_is_found_in_few_steps(start: float) -> None:
    looks: list[float] = []

    def flat(x: float) -> float:
        looks.append(x)
        return float(np.clip(300.0 - x, -1.0, 1.0))

    assert decreasing_root(flat, start, slope=-0.4, low=-600, high=600) == pytest.approx(300, abs=1e-9)
    assert len(looks) < 80


@pytest.mark.parametrize("value", [1.0, -1.0, np.inf])
def test_a_function_that_is_flat_everywhere_has_its_root_at_an_end(value: float) -> None:
    end = 600.0 if value > 0 else -600.0
    assert decreasing_root(lambda x: value, 3.0, low=-600, high=600) == end
    assert np.isfinite(decreasing_root(lambda x: value, 3.0))  # without ends, the last point looked at


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 5), st.sampled_from([0.0, 0.0, 1e-6, 1.0, 40.0])), min_size=1))
def test_a_step_function_crosses_where_its_root_is(pieces: list[tuple[float, float]]) -> None:
    """Stretches, flat or steep; the value at the answer is not positive, and just before it is not negative."""
    ends = np.cumsum([0.0, *(length for length, _ in pieces)])
    values = 1.0 - np.cumsum([0.0, *(length * slope for length, slope in pieces)])

    def stretch(x: float) -> float:
        return float(np.interp(x, ends, values))

    root = decreasing_root(stretch, 0.1, low=0.0, high=float(ends[-1]))
    if values[-1] > 0:
        assert root == ends[-1]
    else:
        assert stretch(root) <= 1e-12 and stretch(root - 1e-9 * (1 + root)) >= -1e-7


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_guess_changes_no_root(seed: int) -> None:
    draw = np.random.default_rng(seed)
    goal, bend = draw.normal(0, 30, 9), np.exp(draw.normal(0, 2, 9))
    low, high = np.full(9, -60.0), np.full(9, 40.0)

    def fall(x: np.ndarray) -> np.ndarray:
        return np.arctan(bend * (goal - x)) + 0.01 * (goal - x)

    guess = np.where(
        draw.random(9) < 0.3, -np.inf, goal + draw.normal(0, 1, 9) * 10 ** draw.uniform(-9, 2, 9)
    )
    found = bisect(fall, low, high, guess=guess)
    np.testing.assert_allclose(found, np.clip(goal, low, high), atol=1e-9)
    np.testing.assert_allclose(bisect(fall, low, high), found, atol=1e-9)
