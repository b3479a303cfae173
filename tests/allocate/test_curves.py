"""The two scalar functions against mpmath-free identities, and their inverses over orders of magnitude."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from sflam.allocate.curves import growth, inverse_growth, inverse_psi, psi
from sflam.allocate.roots import bisect, decreasing_root

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
