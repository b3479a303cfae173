"""Bandwidths and powers by fractional programming at a fixed association and split (section 3.3): arXiv 2409.20247's.

Sending costs a sum of ratios A / R with A = (w_t + W p) a and the rate R(b, p) = b ln(1 + p / (G b)), jointly concave.

    A / R = min over y of A^2 y + 1 / (4 R^2 y),   y = 1 / (2 A R)                                             (3.6)

For fixed y that is convex in (b, p). Alternating lowers the cost at every turn, to a stationary point, which by the
convexity of the whole problem in (b, t) is the optimum.
"""

from __future__ import annotations

import numpy as np

from sflam.allocate.curves import growth, inverse_psi, psi
from sflam.allocate.edge.market import Groups, bracketed, links_of
from sflam.allocate.edge.prices import Links
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import Integers
from sflam.allocate.roots import bisect
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL

ROUNDS = 60
CLOSE = 1e-12
"""Relative fall after which the alternation ends."""


def alternate(
    problem: EdgeProblem, server: Integers, rounds: int = ROUNDS
) -> tuple[Floats, Floats, tuple[float, ...]]:
    """Return bandwidths (Hz) and efficiencies x of the users that send, in order, and the cost after every turn.

    Starts at equal bandwidths and full power.
    """
    users = np.flatnonzero(server != ALL_LOCAL)
    home = server[users]
    if not len(users):
        return np.zeros(0), np.zeros(0), (0.0,)
    links = links_of(problem, users, home)
    groups = Groups(users, home, home, problem.servers)
    band = problem.network.bandwidth
    b = (band / np.maximum(groups.total(np.ones(len(users))), 1.0))[home]
    x = np.log1p(links.max_power / (links.noise * b))
    history = [float(links.cost(b, x).sum())]
    price = np.ones(problem.servers)
    price[home] = links.time_weight * links.times(b, x) / b
    for _ in range(rounds):
        numerator = (links.time_weight + links.weight * links.power(b, x)) * links.payload
        y = 1 / (2 * numerator * b * x)
        b, x, price = _convex(links, groups, band, y, price)
        history.append(float(links.cost(b, x).sum()))
        if history[-1] > history[-2] * (1 - CLOSE):
            break
    return b, x, tuple(history)


def _convex(
    links: Links, groups: Groups, band: Floats, y: Floats, guess: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return b, x and prices [M] that minimise sum A^2 y + 1 / (4 R^2 y) with bandwidths sharing their bands."""
    found: list[Floats] = []

    def excess(log_price: Floats) -> Floats:
        b, x = _answer(links, y, np.exp(log_price)[groups.group])
        found[:] = [b, x]
        used = groups.total(b)
        return np.where(used > 0, np.log(np.where(used > 0, used, 1.0) / band), 0.0)

    price = np.exp(bracketed(excess, np.log(guess)))
    b, x = _answer(links, y, price[groups.group])
    scale = (band / np.maximum(groups.total(b), 1e-300))[groups.group]
    power = links.power(b, x)
    b = b * scale  # the last rounding error: the power stays
    return b, np.log1p(power / (links.noise * b)), price


def _answer(links: Links, y: Floats, price: Floats) -> tuple[Floats, Floats]:
    """Return each user's b and x at a price: one root in x, along which power, bandwidth and rate fall.

    p = (mu / (2 y a^2 W G psi) - w_t) / W or p_max, b = p / (G (e^x - 1)), and mu = e^-x psi / (2 R^3 y).
    """
    with np.errstate(divide="ignore"):
        scale = price / (2 * y * links.payload**2 * links.weight * links.noise)
        most = np.minimum(inverse_psi(scale / links.time_weight), 600.0)

    def power(x: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            free = (scale / psi(x) - links.time_weight) / links.weight
        return np.clip(np.where(links.weight > 0, free, np.inf), 1e-280, links.max_power)

    def balance(log_x: Floats) -> Floats:
        x = np.exp(log_x)
        rate = power(x) / (links.noise * growth(x))
        value: Floats = np.log(price * 2 * y) + 3 * np.log(rate) + x - np.log(psi(x))
        return value

    top = np.log(most)
    x = np.exp(bisect(balance, top - 20.0, top - 1e-15, tolerance=1e-13))
    return power(x) / (links.noise * np.expm1(x)), x
