"""Two functions of the spectral efficiency x (nat/s/Hz) that every radio share solves, and their inverses.

psi(x)    = 1 + (x - 1) e^x     what a hertz is worth: minus dE/dt per unit of bandwidth and noise
growth(x) = (e^x - 1) / x       energy of a nat over its energy at infinite bandwidth; power per t
"""

from __future__ import annotations

import numpy as np

from sflam.network.network import Floats

SERIES_BELOW, SERIES_OF_GROWTH_BELOW = 1e-2, 0.05
ROUNDS = 60  # of Newton; from the bounds below a dozen suffice
TINY = 1e-300
LARGEST = 700.0  # e^x is finite
FAR = 1e-3  # of a bound: what is below it is no guess


def psi(x: Floats) -> Floats:
    """Return 1 + (x - 1) e^x for x >= 0, to full relative precision."""
    grown = np.expm1(x)
    value: Floats = x * grown - (grown - x)
    small = x < SERIES_BELOW
    if small.any():
        s = x[small]
        series = 1 / 2 + s * (1 / 3 + s * (1 / 8 + s * (1 / 30 + s * (1 / 144 + s / 840))))
        value[small] = s * s * series
    return value


def inverse_psi(y: Floats, guess: Floats | None = None) -> Floats:
    """Return x with psi(x) = y > 0 (2.3); inf where y is inf.

    ln psi is convex in ln x, so that Newton in logarithms decreases monotonically from the upper bound, and after one
    step from any other guess.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        upper = np.where(
            y < 1, np.minimum(np.sqrt(2 * y), 1.0), np.minimum(1 + np.log1p((y - 1) / np.e), LARGEST)
        )
    finite = np.isfinite(y)
    if not finite.all():
        x = np.full(y.shape, np.inf)
        x[finite] = inverse_psi(y[finite], None if guess is None else guess[finite])
        return x
    # a step from far below ends above the upper bound
    x = upper if guess is None else np.minimum(np.where(guess > FAR * upper, guess, upper), upper)
    for _ in range(ROUNDS):
        value = psi(x)
        step = np.log(value / y) * (value / np.exp(x) / (x * x))  # in ln x
        x = np.minimum(x * np.exp(-np.minimum(np.maximum(step, -40.0), 40.0)), upper)
        if (np.abs(step) < 1e-8).all():  # quadratic: the next step would be below rounding
            break
    return x


def growth(x: Floats) -> Floats:
    """Return (e^x - 1) / x, 1 at x = 0; beyond x = LARGEST its value there."""
    x = np.minimum(x, LARGEST)
    return np.where(x > 0, np.expm1(x) / np.maximum(x, TINY), 1.0)


def inverse_growth(z: Floats) -> Floats:
    """Return x >= 0 with growth(x) = z; 0 where z <= 1, inf where z is inf (2.6).

    ln growth is convex with x / 2 below it, so that Newton decreases monotonically from x = 2 ln z.
    """
    goal = np.log(np.maximum(z, 1.0))
    x: Floats = 2 * goal
    open_ = (goal > 0) & np.isfinite(goal)
    u, goal = x[open_], goal[open_]
    if not u.size:
        return x
    for _ in range(ROUNDS):
        if u.min() >= SERIES_OF_GROWTH_BELOW:
            fallen = np.expm1(-u)
            value, slope = u + np.log(-fallen / u), -1 / fallen - 1 / u
        else:
            small = u < SERIES_OF_GROWTH_BELOW
            safe = np.where(small, 1.0, u)
            square, fallen = u * u, np.expm1(-safe)
            series = u / 2 + square / 24 - square * square / 2880
            value = np.where(small, series, safe + np.log(-fallen / safe))
            slope = np.where(small, 1 / 2 + u / 12 - square * u / 720, -1 / fallen - 1 / safe)
        step = (value - goal) / slope
        u = np.maximum(u - step, TINY)
        if (np.abs(step) <= 1e-9 * u).all():
            break
    x[open_] = u
    return x


def above_circuits(z: Floats, c: Floats) -> Floats:
    """Return the larger root x of (e^x - 1 + c) / x = z for c >= 0; 0 where there is none.

    e^x - 1 + c - z x is convex and least at ln z, so that Newton falls to the root from the one at c = 0.
    """
    x = inverse_growth(z)
    least = np.log(np.maximum(z, 1.0))
    with np.errstate(invalid="ignore", over="ignore"):
        none = ~(np.expm1(least) + c - z * least <= 0) & np.isfinite(z)
    open_ = np.flatnonzero(~none & (c > 0) & np.isfinite(x) & (x > least))
    u, z_, c_, low = x[open_], z[open_], c[open_], least[open_]
    for _ in range(ROUNDS):
        slope = np.maximum(np.exp(u) - z_, TINY)
        step = np.minimum((np.expm1(u) + c_ - z_ * u) / slope, u - low)
        u = np.maximum(u - np.maximum(step, 0.0), low)
        if np.all(np.abs(step) <= 1e-15 * u):
            break
    x[open_] = u
    x[none] = 0.0
    return x
