"""What one more unit of each limit is worth among several servers, where every user keeps its server and split.

The optimum at an association is convex: the prices mu at which bands clear are its multipliers, and of a clock that is
used up what a hertz takes off the cost of each of its users, L (w_t / f^2 - 2 w_e kappa f), the same for all. A user at
full power has c = (w_t + W p) a / (b x) with x = ln(1 + p / (G b)), so that a drawn watt takes off
t (w_t + W p) / (x G b e^x) - W t. Where adapters are handed over by the whole band B at full power, with s the ratio of
signal to noise there and y = ln(1 + s), a hertz takes c (1 - s / ((1 + s) y)) / B off their cost c besides, and a watt
c s / ((1 + s) y p_max) - W t / eta.
"""

from __future__ import annotations

import numpy as np

from sflam.allocate.edge.market import Settled, links_of, senders
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import EdgeShares, add_up
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL, EdgeShadowPrices

FULL = 1 - 1e-9
"""Of a limit, from which on it is held."""


def edge_shadow_prices(problem: EdgeProblem, settled: Settled) -> EdgeShadowPrices:
    """Return the multipliers of bands, clocks and transmit powers at a settled association."""
    shares, network = settled.shares, problem.network
    groups, cycles = senders(problem, shares.server, shares.split)
    clock = np.zeros(problem.servers)
    if groups.user.size:
        f, home = shares.server_clock[groups.user], groups.server
        weight = problem.energy_weight * network.server_kappa[home]
        each = cycles * (problem.time_weight / f**2 - 2 * weight * f)
        used = groups.total(f) >= FULL * network.server_clock
        clock = np.where(
            used, np.maximum(groups.total(each) / np.maximum(groups.total(np.ones_like(f)), 1), 0.0), 0.0
        )
    worth = np.zeros(len(problem))
    users = np.flatnonzero((shares.server != ALL_LOCAL) & (shares.power >= FULL * network.max_power))
    if users.size:
        links = links_of(problem, users, shares.server[users])
        ratio = links.max_power / (links.noise * shares.bandwidth[users])
        x = np.log1p(ratio)
        time = links.times(shares.bandwidth[users], x)
        cost = links.time_weight + links.weight * links.max_power
        drawn = time * (cost / (x * links.noise * shares.bandwidth[users] * (1 + ratio)) - links.weight)
        worth[users] = np.maximum(drawn, 0.0) / network.amplifier_efficiency[users]
    band = np.where(groups.total(np.ones(len(groups.user))) > 0, settled.band_price, 0.0)
    band_beside, power_beside = _handing(problem, shares)
    return EdgeShadowPrices(bandwidth=band + band_beside, clock=clock, power=worth + power_beside)


def _handing(problem: EdgeProblem, shares: EdgeShares) -> tuple[Floats, Floats]:
    """Return what a hertz, [M], and a watt, [N], take off the cost of handing over adapters; 0 as published."""
    network, users = problem.network, np.arange(len(problem))
    if problem.books is None:
        return np.zeros(problem.servers), np.zeros(len(problem))
    home = np.where(shares.server == ALL_LOCAL, network.gain.argmax(axis=0), shares.server)
    seconds = problem.handed_s[home, users, shares.split]
    cost = problem.handing_price * seconds
    ratio = network.max_power * network.gain[home, users] / (network.noise * network.bandwidth[home])
    steep = ratio / ((1 + ratio) * np.log1p(ratio))
    drawn = problem.energy_price * seconds / network.amplifier_efficiency
    hertz = add_up(home, cost * (1 - steep) / network.bandwidth[home], problem.servers)
    return hertz, cost * steep / network.max_power - drawn
