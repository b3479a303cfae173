"""The least energy of a device's round: alone in the band, for as long as is best, with what it idles away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sflam.allocate.cell.fixed_bandwidth import least_transmit, timing
from sflam.allocate.cell.problem import Problem
from sflam.allocate.curves import TINY, growth
from sflam.allocate.roots import bisect
from sflam.network.network import Floats


def least_energy(problem: Problem) -> Floats:
    """Return J [K] that no plan of a round goes below, caps aside; inf for a device too slow for the deadline.

    Energy of sending and computing does not grow with the round, what is drawn at any clock does: the best round is
    where both change alike, or the longest one.
    """
    free = problem.change(
        network=replace(problem.network, memory=np.full(len(problem), np.inf)),
        radio_cap=np.inf,
        compute_cap=np.inf,
        energy_cap=np.inf,
    )
    cell = replace(free.cell, weight=np.ones(len(problem)))
    band = np.full(len(cell), cell.bandwidth)
    shortest = cell.busy + least_transmit(cell, band)
    late = shortest > cell.deadline
    dearest = timing(cell, band, shortest).energy
    with np.errstate(
        divide="ignore", over="ignore"
    ):  # beyond this round, waiting alone takes more than haste
        wasteful = shortest + dearest / cell.idle_power
    longest = np.maximum(np.minimum(wasteful, cell.deadline), shortest)
    # of an endless round: computing takes none, circuits end the sending
    x = np.minimum(cell.frugal_efficiency(band), np.log1p(cell.snr_bandwidth / band))
    with np.errstate(divide="ignore", invalid="ignore"):
        fed = np.where(x > 0, cell.circuit_power * cell.payload / (band * x), 0.0)
    joules: Floats = cell.noise * cell.payload * growth(x) + fed
    finite = np.flatnonzero(np.isfinite(longest))
    if finite.size:
        part, wide = cell.take(finite), band[finite]

        def saved(log_time: Floats) -> Floats:
            """Return ln of the W that a longer round saves over those that it takes."""
            gain = timing(part, wide, np.exp(log_time)).time_price
            return np.log(np.maximum(gain, TINY)) - np.log(np.maximum(part.idle_power, TINY))

        time = np.exp(bisect(saved, np.log(shortest[finite]), np.log(longest[finite])))
        idle = part.idle_power * (time + part.constant)
        joules[finite] = timing(part, wide, time).energy + idle
    return np.where(late, np.inf, joules + problem.received_j)
