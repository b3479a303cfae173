"""The recommended method of problem B (section 3.4): Lagrangian dual, primal recovery, local search. Certified.

With a price mu_m per hertz of band and nu_m per hertz of clock, every user chooses independently:

    g(mu, nu) = sum_n min over (m, alpha) [local_n(alpha) + link_nm(mu_m) + serve_nm(alpha, nu_m)] - mu B - nu F   (3.7)

is below the optimum for every mu, nu >= 0. Supergradient steps in ln mu and ln nu raise it; the choices of
all steps are evaluated exactly and then improved by moving one user at a time, so that the objective only falls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sflam.allocate.edge import exhaustive as edge_exhaustive
from sflam.allocate.edge.market import Settled, links_of, settle
from sflam.allocate.edge.prices import Links, server_clock
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.search import improve
from sflam.allocate.edge.shadow_prices import edge_shadow_prices
from sflam.allocate.edge.shares import Integers, add_up
from sflam.allocate.referee import Found, planned
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL

ROUNDS = 1000
STEP, FADING = 0.6, 4.0  # step 0.6 / sqrt(1 + i / 4)
KEPT = 6
"""The last improving choices that are evaluated exactly."""
FEW = 50_000
"""Choices of all users together up to which every one is looked at: moving one user at a time can end 5 % too high."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What users choose at prices.

    Attributes:
        server: [N], ``ALL_LOCAL`` where the user trains all layers.
        split: [N].
        bound: g (3.7), a lower bound on (3.1).
        bands: [M] Hz requested.
        clocks: [M] Hz requested.
    """

    server: Integers
    split: Integers
    bound: float
    bands: Floats
    clocks: Floats


class Prices:
    """Every user's best choice at prices: tables over all servers and splits, with memory of the last answer."""

    def __init__(self, problem: EdgeProblem) -> None:
        self.problem = problem
        self.shape = (problem.servers, len(problem))
        self.reach = np.flatnonzero(problem.reachable.ravel())
        server, user = np.divmod(self.reach, len(problem))
        self._server, self._links = server, links_of(problem, user, server)
        self._near: Floats | None = None
        splits = np.flatnonzero(problem.allowed[:, : problem.layers].any(axis=0))
        self.splits = splits
        # [S, M, N] cycles at the server
        self._cycles = problem.served_cycles(
            np.arange(problem.servers)[:, None], np.arange(len(problem)), splits[:, None, None]
        )
        self._weight = problem.energy_weight * problem.network.server_kappa
        # [S, M, N]
        self._own = problem.local[:, splits].T[:, None, :] + problem.beside[:, :, splits].transpose(2, 0, 1)

    def links(self, band_price: Floats) -> tuple[Floats, Floats]:
        """Return [M, N] costs of links, bandwidth paid, and bandwidths; inf and 0 out of reach."""
        links: Links = self._links
        mu = band_price[self._server]
        bandwidth, self._near = links.respond(mu, self._near)
        cost, band = np.full(self.shape, np.inf), np.zeros(self.shape)
        cost.ravel()[self.reach] = links.cost(bandwidth, self._near) + mu * bandwidth
        band.ravel()[self.reach] = bandwidth
        return cost, band

    def serving(self, clock_price: Floats) -> tuple[Floats, Floats]:
        """Return [S, M, N] costs of the server's layers, clock paid, and clocks, for every split but Y."""
        problem, cycles = self.problem, self._cycles
        weight = self._weight[:, None]
        top = problem.network.server_clock[:, None]
        f = server_clock(clock_price[:, None] / cycles, weight, problem.time_weight, top)
        return cycles * (problem.time_weight / f + weight * f * f) + clock_price[:, None] * f, f

    def table(self, band_price: Floats, clock_price: Floats) -> Floats:
        """Return [S, M, N] whole costs at prices of every split but Y, at every server."""
        return self._own + self.links(band_price)[0] + self.serving(clock_price)[0]

    def least(self, band_price: Floats, clock_price: Floats) -> Floats:
        """Return [N] what every user costs at prices where it chooses best, its shares paid."""
        alone: Floats = self.problem.local[:, self.problem.layers]
        if not len(self.splits):
            return alone
        served = self.table(band_price, clock_price).reshape(-1, len(alone)).min(axis=0)
        found: Floats = np.minimum(served, alone)
        return found

    def choose(self, band_price: Floats, clock_price: Floats) -> Choice:
        """Return every user's best choice and the bound."""
        problem, users = self.problem, np.arange(self.shape[1])
        alone = problem.local[:, problem.layers]
        if not len(self.splits):
            none = np.zeros(problem.servers)
            return Choice(
                np.full(len(users), ALL_LOCAL),
                np.full(len(users), problem.layers),
                float(alone.sum()),
                none,
                none,
            )
        link, band = self.links(band_price)
        serve, share = self.serving(clock_price)
        cost = (self._own + serve + link).reshape(-1, len(users))
        best = cost.argmin(axis=0)
        least = cost[best, users]
        split, server = np.divmod(best, problem.servers)
        away = least < alone
        network = problem.network
        bound = (
            np.minimum(least, alone).sum()
            - band_price @ network.bandwidth
            - clock_price @ network.server_clock
        )
        home, sent = server[away], users[away]
        return Choice(
            server=np.where(away, server, ALL_LOCAL),
            split=np.where(away, self.splits[split], problem.layers),
            bound=float(bound),
            bands=add_up(home, band[home, sent], problem.servers),
            clocks=add_up(home, share[split[away], home, sent], problem.servers),
        )


def ascend(
    problem: EdgeProblem, rounds: int = ROUNDS, start: tuple[Floats, Floats] | None = None
) -> tuple[float, list[Choice], tuple[Floats, Floats]]:
    """Return the best bound (3.7), the last choices that improved it, and the prices it was found at.

    Args:
        problem: any.
        rounds: supergradient steps, O(N M Y) each.
        start: prices of bands and clocks, positive; made from equal shares by default.
    """
    network = problem.network
    prices = Prices(problem)
    mu, nu = (np.log(each) for each in (start or first_prices(problem)))
    kept: list[Choice] = []
    best, found = -np.inf, (np.exp(mu), np.exp(nu))
    for turn in range(rounds):
        choice = prices.choose(np.exp(mu), np.exp(nu))
        if choice.bound > best:
            best, found = choice.bound, (np.exp(mu), np.exp(nu))
            kept = [*kept[1 - KEPT :], choice]
        step = STEP / np.sqrt(1 + turn / FADING)
        mu = mu + step * np.clip(choice.bands / network.bandwidth - 1, -1, 1)
        nu = np.maximum(nu + step * np.clip(choice.clocks / network.server_clock - 1, -1, 1), -600.0)
    return best, kept, found


def first_prices(problem: EdgeProblem) -> tuple[Floats, Floats]:
    """Return prices [M] of bands and clocks at which users choose equal shares of all servers."""
    network = problem.network
    each = max(1.0, len(problem) / problem.servers)
    nearest = network.gain.argmax(axis=0)
    users = np.arange(len(problem))
    links = links_of(problem, users, nearest)
    band = network.bandwidth[nearest] / each
    x = np.log1p(links.max_power / (links.noise * band))
    mu = np.exp(np.log(problem.time_weight * links.times(band, x) / band).mean())
    share = network.server_clock[nearest] / each
    nu = np.exp(np.log(problem.layers / 2 * problem.server_cycles[nearest, users] / share**2).mean())
    return np.full(problem.servers, mu), np.full(problem.servers, problem.time_weight * nu)


@planned("dual")
def solve(problem: EdgeProblem, rounds: int = ROUNDS, budget: int = 1500, few: int = FEW) -> Found:
    """Return the best plan found, with the bound (3.7) that no plan beats.

    Args:
        problem: any.
        rounds: supergradient steps.
        budget: moves of one user that are evaluated exactly.
        few: choices up to which all are looked at, which makes the plan optimal.
    """
    bound, kept, _ = ascend(problem, rounds)
    best: Settled | None = None
    seen = set()
    for choice in kept:
        if (key := (choice.server.tobytes(), choice.split.tobytes())) not in seen:
            seen.add(key)
            tried = settle(problem, choice.server, choice.split)
            best = tried if best is None or tried.objective < best.objective else best
    assert best is not None
    best, history = improve(problem, best, prices=Prices(problem), budget=budget)
    if edge_exhaustive.choices(problem) <= few:
        truth = edge_exhaustive.find(problem)
        best = min(best, truth, key=lambda plan: plan.objective)
        bound, history = best.objective, (*history, best.objective)
    prices = edge_shadow_prices(problem, best)
    return Found(
        problem=problem, shares=best.shares, lower_bound=bound, history=history, shadow_prices=prices
    )
