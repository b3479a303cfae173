"""The optimum at a fixed association and split: convex, and each server needs one price per resource (section 3.2).

Bandwidth and clocks separate, and so do servers. Prices of many groups of users are found together: a group shares one
server's band or clock, and servers, subsets of users or tried moves are all groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sflam.allocate.edge.prices import Links, efficiency, server_clock
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import EdgeShares, Integers, add_up
from sflam.allocate.roots import bisect
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL

LEAST_PRICE = 1e-280
"""A resource that is not used up has no price; logarithms want one."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Members of groups, [n] each; a group has one server.

    Attributes:
        user: index.
        server: index.
        group: index, from 0.
        count: how many groups.
        weight: how much of a member there is: its share of x in a relaxed association, 1 otherwise.
    """

    user: Integers
    server: Integers
    group: Integers
    count: int
    weight: Floats | None = None

    def total(self, values: Floats) -> Floats:
        """Return sums over the members of each group, [count]."""
        added = values if self.weight is None else values * self.weight
        return add_up(self.group, added, self.count)

    def equal(self, whole: Floats) -> Floats:
        """Return each member's equal share of what its group has, [n]."""
        size = self.total(np.ones(len(self.user)))
        return (whole / np.where(size > 0, size, 1.0))[self.group]

    @property
    def home(self) -> Integers:
        """[count] the server of each group; 0 for one without members."""
        home = np.zeros(self.count, np.int64)
        home[self.group] = self.server
        return home


def links_of(problem: EdgeProblem, user: Integers, server: Integers) -> Links:
    """Return the links of pairs of users and servers, [n]."""
    network = problem.network
    return Links(
        payload=problem.payload[user],
        noise=problem.noise[server, user],
        weight=problem.energy_price[user],
        max_power=network.max_power[user] / network.amplifier_efficiency[user],
        time_weight=problem.time_weight + problem.energy_price[user] * network.circuit_power[user],
    )


@dataclass(frozen=True, eq=False)
class Bands:
    """The best shares of bands: [n] per member, [groups] prices mu in 1/Hz."""

    price: Floats
    bandwidth: Floats
    efficiency: Floats
    cost: Floats


def share_bands(problem: EdgeProblem, groups: Groups, guess: Floats | None = None) -> Bands:
    """Return the least sum of w_t t + W p t in every group whose members share their server's band."""
    links = links_of(problem, groups.user, groups.server)
    band = problem.network.bandwidth[groups.home]
    if not len(groups.user):
        return Bands(np.zeros(groups.count), *(np.zeros(0),) * 3)
    if guess is None:
        equal = groups.equal(band)
        x = efficiency(links, equal)
        worth = links.time_weight * links.times(equal, x) / equal
        guess = _middle(groups, worth)
    near: list[Floats | None] = [None]

    def excess(log_price: Floats) -> Floats:
        bandwidth, near[0] = links.respond(np.exp(log_price)[groups.group], near[0])
        used = groups.total(bandwidth)
        return np.where(used > 0, np.log(np.where(used > 0, used, 1.0) / band), 0.0)

    log_price = bracketed(excess, np.log(guess))
    price = np.exp(log_price)
    bandwidth, _ = links.respond(price[groups.group], near[0])
    used = groups.total(bandwidth)
    bandwidth = bandwidth * np.where(used > 0, band / np.where(used > 0, used, 1.0), 1.0)[groups.group]
    x = efficiency(links, bandwidth)
    return Bands(price, bandwidth, x, links.cost(bandwidth, x))


@dataclass(frozen=True, eq=False)
class Clocks:
    """The best shares of clocks: [n] per member, [groups] prices nu in 1/Hz; 0 where the clock is not used up."""

    price: Floats
    clock: Floats
    cost: Floats


def share_clocks(problem: EdgeProblem, groups: Groups, cycles: Floats, guess: Floats | None = None) -> Clocks:
    """Return the least sum of w_t L / f + w_e kappa f^2 L in every group whose members share their server's clock.

    ``cycles`` is L [n], positive.
    """
    network, lam = problem.network, problem.time_weight
    weight = problem.energy_weight * network.server_kappa[groups.server]
    top = network.server_clock[groups.server]
    whole = network.server_clock[groups.home]
    if not len(groups.user):
        return Clocks(np.zeros(groups.count), np.zeros(0), np.zeros(0))

    def clocks(price: Floats) -> Floats:
        return server_clock(price[groups.group] / cycles, weight, lam, top)

    free = groups.total(clocks(np.zeros(groups.count)))
    tight = free > whole
    price = np.zeros(groups.count)
    if tight.any():
        if guess is None:
            equal = groups.equal(whole)
            worth = cycles * lam / equal**2
            guess = _middle(groups, np.maximum(worth - 2 * cycles * weight * equal, 1e-3 * worth))

        def excess(log_price: Floats) -> Floats:
            used: Floats = np.log(np.maximum(groups.total(clocks(np.exp(log_price))), 1e-300) / whole)
            return np.where(tight, used, 0.0)

        price = np.where(tight, np.exp(bracketed(excess, np.log(np.maximum(guess, LEAST_PRICE)))), 0.0)
    f = clocks(price)
    used = groups.total(f)
    f = f * (whole / np.maximum(used, whole))[groups.group]
    return Clocks(price, f, cycles * (lam / f + weight * f * f))


@dataclass(frozen=True, eq=False)
class Settled:
    """The optimum at a fixed association and split.

    Attributes:
        objective: (3.1).
        shares: of every user.
        band_price: [M] mu, 1/Hz; 0 where no user is served.
        clock_price: [M] nu, 1/Hz.
    """

    objective: float
    shares: EdgeShares
    band_price: Floats
    clock_price: Floats


def senders(problem: EdgeProblem, server: Integers, split: Integers) -> tuple[Groups, Floats]:
    """Return the users that send, grouped by their servers, and the cycles [n] of their layers there."""
    users = np.flatnonzero(server != ALL_LOCAL)
    home = server[users]
    return Groups(users, home, home, problem.servers), problem.served_cycles(home, users, split[users])


def settle(problem: EdgeProblem, server: Integers, split: Integers) -> Settled:
    """Return the optimal shares for servers [N] (``ALL_LOCAL`` where the split is Y) and splits [N]."""
    groups, cycles = senders(problem, server, split)
    bands = share_bands(problem, groups)
    clocks = share_clocks(problem, groups, cycles)
    shares = shares_from(problem, server, split, bands.bandwidth, bands.efficiency, clocks.clock)
    objective = problem.fixed(server, split).sum() + bands.cost.sum() + clocks.cost.sum()
    return Settled(float(objective), shares, bands.price, clocks.price)


def shares_from(
    problem: EdgeProblem,
    server: Integers,
    split: Integers,
    bandwidth: Floats,
    efficiencies: Floats,
    clock: Floats,
) -> EdgeShares:
    """Return shares from those of the users that send, in order."""
    users = np.flatnonzero(server != ALL_LOCAL)
    drawn = links_of(problem, users, server[users]).power(bandwidth, efficiencies)
    power = drawn * problem.network.amplifier_efficiency[users]
    return spread(problem, server, split, bandwidth, power, clock)


def spread(
    problem: EdgeProblem, server: Integers, split: Integers, bandwidth: Floats, power: Floats, clock: Floats
) -> EdgeShares:
    """Return the shares of all users from those of the users that send, in order."""
    every = np.zeros((3, len(problem)))
    every[:, server != ALL_LOCAL] = bandwidth, power, clock
    return EdgeShares(
        server=server.copy(),
        split=split.copy(),
        bandwidth=every[0],
        power=every[1],
        clock=problem.clock,
        server_clock=every[2],
    )


def _middle(groups: Groups, values: Floats) -> Floats:
    """Return the geometric mean over the members of each group; 1 for an empty one."""
    size = np.bincount(groups.group, minlength=groups.count)
    total = np.bincount(groups.group, np.log(values), minlength=groups.count)
    return np.exp(total / np.maximum(size, 1))


def bracketed(excess: Callable[[Floats], Floats], guess: Floats) -> Floats:
    """Return where a decreasing function of [n] crosses 0: a bracket grown around a guess, then closed."""
    width = np.full(guess.shape, 0.5)
    low, high = guess - width, guess + width
    for _ in range(40):
        left, right = excess(low) < 0, excess(high) > 0
        if not (left.any() or right.any()):
            break
        width = width * 3
        low, high = np.where(left, low - width, low), np.where(right, high + width, high)
    return bisect(excess, low, high, tolerance=1e-12)
