"""Caps on a device's total energy, radio and computing: one multiplier per device.

A multiplier adds to the weight of the device's energy, which falls as the weight grows: its value is the root of a
monotone function.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.best_response import Response, respond
from sflam.allocate.roots import bisect
from sflam.network.network import Floats

HEAVIEST = 60.0  # ln of the largest extra weight, over the smallest looked at


def respond_within(
    cell: Cell, time: float | Floats, price: float, near: Response | None = None, *, least: bool = False
) -> Response:
    """Return ``respond`` with joint energy caps held. With ``least``, the least bandwidth instead of the best."""
    if least:
        cell = replace(cell, weight=np.zeros(len(cell)))
    answer = respond(cell, time, price, near)
    if not np.isfinite(cell.energy_cap).any():
        return answer
    used = answer.energy(cell) + cell.compute_energy(answer.compute)
    over = np.flatnonzero(used > cell.energy_cap)
    answer.extra = np.zeros(len(cell))
    if not over.size:
        return answer
    part, time = cell.take(over), np.broadcast_to(time, len(cell))[over]

    def heavier(log_extra: Floats) -> tuple[Cell, Response]:
        heavy = replace(part, weight=part.weight + np.exp(log_extra))
        return heavy, respond(heavy, time, price)

    def excess(log_extra: Floats) -> Floats:
        heavy, response = heavier(log_extra)
        return np.log((response.energy(heavy) + heavy.compute_energy(response.compute)) / heavy.energy_cap)

    # at this weight energy outweighs the device's whole share of bandwidth
    typical = np.log(price * cell.bandwidth / part.energy_cap)
    root = bisect(excess, typical - HEAVIEST, typical + HEAVIEST / 2, tolerance=1e-12)
    _, response = heavier(root)
    for name in ("first", "efficiency", "bandwidth", "transmit", "compute", "time_price", "free"):
        column = getattr(answer, name).copy()
        column[over] = getattr(response, name)
        setattr(answer, name, column)
    answer.free[over] = False
    answer.extra[over] = np.exp(root)
    return answer
