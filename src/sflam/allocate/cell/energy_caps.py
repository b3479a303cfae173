"""Caps on a device's total energy, radio and computing: one multiplier per device.

A multiplier adds to the weight of the device's energy, which falls as the weight grows. On its cap a device's energy is
given, so that it wants the least bandwidth at which it keeps that, whatever the price: its answer to a round time is
sought once, as the root of a monotone function, and holds at every price mu; there its weight is mu times that at price
1. What a device draws over the whole round takes from its cap, E + P0 T <= cap, so that a longer round also costs the
multiplier times P0: that is taken off the price of the device's time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell import airtime, best_response
from sflam.allocate.cell.airtime import AirtimeCell
from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.best_response import Response
from sflam.allocate.roots import bisect
from sflam.network.network import Floats

NOTHING = 1e-12  # share of a cap that stands for none of it
IMPOSSIBLE = 1e-6  # relative excess at the largest weight that no weight takes away
ROUNDING = 1e-13  # of a round's length
HEAVIEST = 60.0  # ln of the largest extra weight, over the smallest looked at
MOST = 1e280  # 1/J of extra weight, as of a device that a round's length leaves nothing
COLUMNS = ("first", "efficiency", "bandwidth", "transmit", "compute", "time_price")
Mask = NDArray[np.bool_]
Integers = NDArray[np.intp]


def respond(cell: Cell, time: float | Floats, price: float, near: Response | None = None) -> Response:
    """Return each device's best answer to round time T (s) and price mu (1/Hz), by what they share: band or time."""
    if isinstance(cell, AirtimeCell):
        return airtime.respond(cell, time, price, near)
    return best_response.respond(cell, time, price, near)


def respond_within(
    cell: Cell, time: float | Floats, price: float, near: Response | None = None, *, least: bool = False
) -> Response:
    """Return ``respond`` with joint energy caps held. With ``least``, the least bandwidth instead of the best."""
    if least:
        cell = cell.at_weight(np.zeros(len(cell)))
    answer = respond(cell, time, price, None if least else near)
    if not np.isfinite(cell.energy_cap).any():
        return answer
    used = answer.energy(cell) + cell.compute_energy(answer.compute)
    left = np.maximum(cell.left(time), NOTHING * cell.energy_cap)
    over = np.flatnonzero(used > left)
    answer.extra = np.zeros(len(cell))
    answer.held = near.held if near is not None else None
    if not over.size:
        return answer
    held = _on_caps(cell, over, left, time, price, near)
    for name in COLUMNS:
        column = getattr(answer, name).copy()
        column[over] = getattr(held.answer, name)[over]
        setattr(answer, name, column)
    answer.extra[over] = np.clip(price * held.weight[over] - cell.weight[over], 0.0, MOST)
    answer.time_price[over] *= price
    if cell.waits:
        answer.time_price[over] -= answer.extra[over] * cell.idle_power[over]
    answer.free[over], answer.held = False, held
    return answer


@dataclass(eq=False)
class OnCaps:
    """What devices do on their caps in a round of some time. Arrays [K]; only what is ``known`` means anything.

    Attributes:
        time: s of the round, one or [K].
        known: whether a device was asked for.
        weight: 1/J at which its energy is its cap's, at a price of bandwidth of 1.
        answer: the answers at that price.
    """

    time: float | Floats
    known: Mask
    weight: Floats
    answer: Response


def _on_caps(
    cell: Cell, over: Integers, left: Floats, time: float | Floats, price: float, near: Response | None
) -> OnCaps:
    """Return the answers of at least the devices ``over`` on their caps; those of ``near`` serve at its time."""
    last = near.held if near is not None and isinstance(near.held, OnCaps) else None
    if last is not None and np.array_equal(last.time, time):
        missing = over[~last.known[over]]
        held = last
    else:
        columns = {name: np.full(len(cell), np.nan) for name in (*COLUMNS, "weight")}
        weight, free = columns.pop("weight"), np.zeros(len(cell), bool)
        held = OnCaps(time=time, known=free.copy(), weight=weight, answer=Response(**columns, free=free))
        missing = over if last is None else np.union1d(over, np.flatnonzero(last.known))
    if missing.size:
        guess = None if last is None else np.log(last.weight[missing])
        times = np.broadcast_to(time, len(cell))[missing]
        with np.errstate(
            divide="ignore"
        ):  # the own weight of a device over its cap is too light, at any price
            light = np.where(np.isin(missing, over), np.log(cell.weight[missing] / price), -np.inf)
        weight, found = _least(cell.take(missing), times, light, left[missing], guess)
        held.known[missing], held.weight[missing] = True, weight
        for name in COLUMNS:
            getattr(held.answer, name)[missing] = getattr(found, name)
    return held


def _least(
    cell: Cell, time: Floats, light: Floats, left: Floats, guess: Floats | None
) -> tuple[Floats, Response]:
    """Return the weights [n] at which devices use the J that are ``left`` to them, and their answers, at price 1; those
    whose logarithms are ``light`` are too light."""

    def heavier(log_weight: Floats) -> tuple[Cell, Response]:
        heavy = cell.at_weight(np.exp(log_weight))
        return heavy, respond(heavy, time, 1.0)

    def excess(log_weight: Floats) -> Floats:
        heavy, response = heavier(log_weight)
        return np.log((response.energy(heavy) + heavy.compute_energy(response.compute)) / left)

    # at this weight energy outweighs the device's whole share of bandwidth
    typical = np.log(cell.bandwidth / left)
    low, high = np.maximum(typical - HEAVIEST, light - 1), np.maximum(typical, light) + HEAVIEST / 2
    root = bisect(excess, low, high, tolerance=1e-12, guess=guess)
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
    return np.exp(root), response
