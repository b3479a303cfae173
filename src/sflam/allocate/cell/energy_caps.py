"""Caps on a device's total energy, radio and computing: one multiplier per device.

A multiplier adds to the weight of the device's energy, which falls as the weight grows: its value is the root of a
monotone function. What a device draws over the whole round takes from its cap, E + P0 T <= cap, so that a longer round
also costs the multiplier times P0: that is taken off the price of the device's time.
"""

from __future__ import annotations

import numpy as np

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.best_response import Response, respond
from sflam.allocate.roots import bisect
from sflam.network.network import Floats

NOTHING = 1e-12  # share of a cap that stands for none of it
IMPOSSIBLE = 1e-6  # relative excess at the largest weight that no weight takes away
ROUNDING = 1e-13  # of a round's length
HEAVIEST = 60.0  # ln of the largest extra weight, over the smallest looked at


def respond_within(
    cell: Cell, time: float | Floats, price: float, near: Response | None = None, *, least: bool = False
) -> Response:
    """Return ``respond`` with joint energy caps held. With ``least``, the least bandwidth instead of the best."""
    if least:
        cell = cell.at_weight(np.zeros(len(cell)))
    answer = respond(cell, time, price, near)
    if not np.isfinite(cell.energy_cap).any():
        return answer
    used, left = answer.energy(cell) + cell.compute_energy(answer.compute), cell.left(time)
    over = np.flatnonzero(used > left)
    answer.extra = np.zeros(len(cell))
    if not over.size:
        return answer
    part, time = cell.take(over), np.broadcast_to(time, len(cell))[over]
    left = np.maximum(left[over], NOTHING * part.energy_cap)

    def heavier(log_extra: Floats) -> tuple[Cell, Response]:
        heavy = part.at_weight(part.weight + np.exp(log_extra))
        return heavy, respond(heavy, time, price)

    def excess(log_extra: Floats) -> Floats:
        heavy, response = heavier(log_extra)
        return np.log((response.energy(heavy) + heavy.compute_energy(response.compute)) / left)

    # at this weight energy outweighs the device's whole share of bandwidth
    typical = np.log(price * cell.bandwidth / left)
    guess = None
    if near is not None and near.extra is not None:  # of those that were over their caps then, too
        with np.errstate(divide="ignore"):
            guess = np.log(near.extra[over])
    root = bisect(excess, typical - HEAVIEST, typical + HEAVIEST / 2, tolerance=1e-12, guess=guess)
    heavy, response = heavier(root)
    spent = response.energy(heavy) + heavy.compute_energy(response.compute)
    if (hidden := spent > left * (1 + 1e-10)).any():
        # a rounding error of a long round can be much of a short computing time
        slower = np.where(hidden, heavy.slow_enough(left - response.energy(heavy)), 0.0)
        fits = slower - response.compute < ROUNDING * time
        response.compute = np.where(fits, np.maximum(response.compute, slower), response.compute)
        spent = response.energy(heavy) + heavy.compute_energy(response.compute)
    if cell.waits or cell.circuits:
        response.bandwidth = np.where(spent > left * (1 + IMPOSSIBLE), np.inf, response.bandwidth)
    if cell.waits:
        response.time_price = response.time_price - np.exp(root) * part.idle_power
    for name in ("first", "efficiency", "bandwidth", "transmit", "compute", "time_price", "free"):
        column = getattr(answer, name).copy()
        column[over] = getattr(response, name)
        setattr(answer, name, column)
    answer.free[over] = False
    answer.extra[over] = np.exp(root)
    return answer
