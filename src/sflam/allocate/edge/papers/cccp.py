"""Association by the convex-concave procedure (section 3.3): arXiv 2409.20247's way to integer associations.

Every user spreads weights x over options (a server and a split, or nothing sent). In perspective form x phi(z / x) the
cost V(x) of the best shares is convex, and its gradient is each option's cost at prices. Adding rho sum x (1 - x)
makes weights integer: its concave part is linearised at the last x, the convex rest minimised by Frank-Wolfe steps, and
rho doubled until every weight is 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sflam.allocate.edge.market import Groups, share_bands, share_clocks
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import Integers
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL

LEAST_STEP = 0.02
WHOLE = 1e-3
"""Weights this near to 0 or 1 are whole."""
TURNS, STEPS, DOUBLINGS = 4, 8, 12
CLOSE = 1e-4
"""Relative fall that ends Frank-Wolfe steps, and turns at one rho."""


@dataclass(frozen=True, eq=False)
class Options:
    """What users choose from, [n] each; every user has at least one.

    Attributes:
        user: index.
        server: index, or ``ALL_LOCAL``.
        split: layers on the user.
    """

    user: Integers
    server: Integers
    split: Integers


def options_of(problem: EdgeProblem, split: Integers | None = None) -> Options:
    """Return every server in reach at a given split [N], or at every allowed one; and all-local where allowed."""
    layers = problem.layers
    allowed = problem.allowed.copy()
    if split is not None:
        allowed &= np.arange(layers + 1) == split[:, None]
    user, alpha = np.nonzero(allowed[:, :layers])
    reach = problem.reachable[:, user].T  # [n, M]
    row, server = np.nonzero(reach)
    alone = np.flatnonzero(allowed[:, layers])
    return Options(
        user=np.concatenate([user[row], alone]),
        server=np.concatenate([server, np.full(len(alone), ALL_LOCAL)]),
        split=np.concatenate([alpha[row], np.full(len(alone), layers)]),
    )


class Relaxed:
    """V(x) and its gradient over options."""

    def __init__(self, problem: EdgeProblem, options: Options) -> None:
        self.problem, self.options = problem, options
        self.away = np.flatnonzero(options.server != ALL_LOCAL)
        self.user, self.home = options.user[self.away], options.server[self.away]
        self.cycles = problem.served_cycles(self.home, self.user, options.split[self.away])
        self.own = problem.local[options.user, options.split]
        self.own[self.away] += problem.beside[self.home, self.user, options.split[self.away]]
        self._near: tuple[Floats, Floats] | None = None

    def value(self, x: Floats) -> tuple[float, Floats]:
        """Return V(x) and its gradient [n]; a server without any weight keeps its last price."""
        weight = x[self.away]
        groups = Groups(self.user, self.home, self.home, self.problem.servers, weight)
        guess = self._near or (None, None)
        bands = share_bands(self.problem, groups, guess[0])
        clocks = share_clocks(self.problem, groups, self.cycles, guess[1])
        idle = groups.total(np.ones(len(weight))) <= 0
        if not idle.any():
            positive = np.where(clocks.price > 0, clocks.price, np.median(clocks.price) + 1e-12)
            self._near = bands.price, positive
        gradient = self.own.copy()
        gradient[self.away] += bands.cost + bands.price[self.home] * bands.bandwidth
        gradient[self.away] += clocks.cost + clocks.price[self.home] * clocks.clock
        value = float(x @ self.own + weight @ (bands.cost + clocks.cost))
        return value, gradient


def associate(problem: EdgeProblem, options: Options) -> tuple[Integers, Integers, tuple[float, ...]]:
    """Return servers [N], splits [N], and V(x) + rho sum x (1 - x) after every turn of the last rho."""
    relaxed = Relaxed(problem, options)
    user = options.user
    size = np.bincount(user, minlength=len(problem))
    x = 1.0 / size[user]
    x, value = _descend(relaxed, x, np.zeros(len(x)))
    rho = 0.01 * value / len(problem)
    history: list[float] = []
    for _ in range(DOUBLINGS):
        history = [value + rho * float((x * (1 - x)).sum())]
        for _ in range(TURNS):
            x, value = _descend(relaxed, x, rho * (1 - 2 * x))
            history.append(value + rho * float((x * (1 - x)).sum()))
            if history[-1] > history[-2] * (1 - CLOSE):
                break
        if np.minimum(x, 1 - x).max() < WHOLE:
            break
        rho *= 2
    chosen = _first_largest(user, x, len(problem))
    return options.server[chosen], options.split[chosen], tuple(history)


def _descend(relaxed: Relaxed, x: Floats, slope: Floats) -> tuple[Floats, float]:
    """Return x and V(x) after Frank-Wolfe steps on V(x) + slope x, halved until they gain a third of the slope's."""
    user, users = relaxed.options.user, len(relaxed.problem)
    value, gradient = relaxed.value(x)
    for _ in range(STEPS):
        total = gradient + slope
        corner = np.zeros(len(x))
        corner[_first_largest(user, -total, users)] = 1.0
        promise = float(total @ (x - corner))
        if promise <= CLOSE * abs(value):
            break
        length = 1.0
        while True:
            tried = x + length * (corner - x)
            next_value, next_gradient = relaxed.value(tried)
            gain = value + slope @ x - next_value - slope @ tried
            if gain >= length * promise / 3 or length < LEAST_STEP:
                break
            length /= 2
        if gain <= 0:
            break
        x, value, gradient = tried, next_value, next_gradient
    return x, value


def _first_largest(user: Integers, values: Floats, users: int) -> Integers:
    """Return for every user the index of its option with the largest value."""
    order = np.lexsort((-values, user))
    first = np.searchsorted(user[order], np.arange(users))
    return order[first]
