"""The optimum where every device's bandwidth is given: powers, times and clocks, and the best round time (2.1).

At bandwidth b a second of transmission is worth W G b psi(a / (b t)); a second of
computing is worth the same at the best clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.shares import Shares
from sflam.allocate.curves import TINY, growth, psi
from sflam.allocate.limits import Impossible
from sflam.allocate.roots import bisect, decreasing_root
from sflam.network.network import Floats

EVERY = slice(None)
ROUNDING = 1e-12
Index = slice | NDArray[np.intp]


@dataclass(eq=False)
class Timing:
    """Times of all devices at given bandwidths, [K].

    Attributes:
        transmit: s.
        compute: s.
        time_price: zeta, 1/s.
        energy: J of transmission and computing.
    """

    transmit: Floats
    compute: Floats
    time_price: Floats
    energy: Floats


def least_transmit(cell: Cell, bandwidth: Floats) -> Floats:
    """Return [K] s: the shortest transmission that power and the radio's energy cap allow; inf without bandwidth."""
    listening, cell = cell.listening(bandwidth), cell.at_bandwidth(bandwidth)
    b = np.maximum(bandwidth, TINY)
    x = np.minimum(np.log1p(np.minimum(cell.snr_bandwidth / b, 1e300)), cell.efficiency_at(b))
    fits = bandwidth > 0
    if cell.circuits:  # full power may be too little: circuits use up the cap before all is sent
        fits = fits & (x > 0)
        x = np.where(fits, x, 1.0)
        spent = cell.noise * cell.payload * growth(x) + cell.circuit_power * cell.payload / (b * x)
        fits = fits & (spent <= cell.radio_cap * (1 + ROUNDING))
    return np.where(fits, cell.payload / (b * x), np.inf) + listening


def shortest_round(cell: Cell, bandwidth: Floats) -> float:
    """Return the shortest round at these bandwidths, s.

    Raises:
        Impossible: a device cannot keep its radio's cap over its bandwidth, however long it sends.
    """
    shortest = float((cell.busy + least_transmit(cell, bandwidth)).max())
    if shortest == np.inf:
        raise Impossible(
            "some device's share of the band is too small for its energy cap: circuits draw power for as long as it "
            "sends; raise the cap, give more bandwidth, fewer bits or an earlier cut, or use method optimal"
        )
    return shortest


def timing(cell: Cell, bandwidth: Floats, time: float | Floats) -> Timing:
    """Return the cheapest times within a round of ``time`` s, one or [K], not below ``shortest_round``.

    A radio that would only feed its circuits is done early.
    """
    listening, cell = cell.listening(bandwidth), cell.at_bandwidth(bandwidth)
    least, longest = least_transmit(cell, bandwidth), time - cell.busy
    if cell.circuits:
        with np.errstate(divide="ignore"):
            longest = np.minimum(longest, cell.payload / (bandwidth * cell.frugal_efficiency(bandwidth)))
    t = np.maximum(longest, least)
    radio = cell.noise * bandwidth  # W per e^x - 1

    def worth(t: Floats, index: Index) -> Floats:
        return radio[index] * psi(cell.payload[index] / (bandwidth[index] * t))

    fed = cell.circuit_power
    slow = np.flatnonzero((cell.cycles > 0) & (worth(t, EVERY) - fed < cell.full_speed_gain))
    if slow.size:
        part, span = cell.take(slow), (time - cell.delay)[slow]

        def balance(t: Floats) -> Floats:
            gain = np.maximum(part.slowing_gain(span - t) + part.circuit_power, TINY)
            return np.log(np.maximum(worth(t, slow), TINY)) - np.log(gain)

        t[slow] = bisect(balance, np.minimum(least[slow], t[slow]), t[slow])
    compute = np.where(cell.cycles > 0, np.maximum(time - cell.delay - t, cell.least_compute), 0.0)
    x = cell.payload / (bandwidth * t)
    saved = np.where(cell.full_power > 0, 0.0, radio * psi(x) - fed)
    price = cell.weight * np.maximum(saved, cell.slowing_gain(compute))
    energy = radio * t * np.expm1(x) + fed * t + cell.compute_energy(compute)
    return Timing(t + listening, compute, price, energy)


def best_round(cell: Cell, bandwidth: Floats) -> tuple[float, Timing]:
    """Return the round time, s, and the times that minimise (2.1) at these bandwidths."""
    shortest, lam = shortest_round(cell, bandwidth), cell.latency_weight

    def worth(stretch: float) -> float:
        value = timing(cell, bandwidth, shortest * (1 + float(np.exp(stretch)))).time_price.sum()
        return float(np.log(max(value / lam, TINY))) if lam > 0 else np.inf

    if cell.deadline <= shortest or not (cell.weight > 0).any():
        return shortest, timing(cell, bandwidth, shortest)
    high = float(np.log(min(cell.deadline / shortest - 1, 1e12)))
    stretch = decreasing_root(worth, np.log(0.5), low=np.log(1e-12), high=high, tolerance=1e-12)
    time = cell.deadline if stretch >= high else shortest * (1 + float(np.exp(stretch)))
    return time, timing(cell, bandwidth, time)


def objective(cell: Cell, time: float, energy: Floats) -> float:
    """Return lam T + sum W E."""
    return cell.latency_weight * time + float(cell.weight @ energy)


def shares(cell: Cell, bandwidth: Floats, transmit: Floats, compute: Floats) -> Shares:
    """Return the devices' shares: radiated power eta G b (e^x - 1), clock C / tau; full speed where none is chosen."""
    computing = cell.cycles > 0
    speed = cell.cycles / np.where(computing, compute, 1.0)
    power = cell.power(bandwidth, transmit)
    band, airtime = cell.split(bandwidth)
    return Shares(
        bandwidth=band,
        airtime=airtime,
        power=np.minimum(power, cell.max_power) * cell.amplifier_efficiency,
        clock=np.where(computing, np.minimum(speed, cell.max_clock), cell.max_clock),
    )
