"""Round times at which devices fit the band while what they draw in waiting takes from their caps, E + P0 T <= cap.

The least bandwidth of all devices together is convex in T: too short a round needs more of it, and one that leaves too
little of a cap does too. The rounds that fit are an interval.
"""

from __future__ import annotations

import numpy as np

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.energy_caps import respond_within
from sflam.allocate.limits import Impossible

ROUNDS = 200
CLOSE = 1e-13


def fitting(cell: Cell, floor: float) -> tuple[float, float]:
    """Return the shortest and the longest round, s, that hold caps which shrink with the round.

    Args:
        cell: of which some cap leaves less, the longer the round.
        floor: s that no round can be shorter than.

    Raises:
        Impossible: none does.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        spent = np.where(cell.idle_power > 0, cell.energy_cap / cell.idle_power, np.inf) - cell.constant
    ceiling = float(spent.min())
    if ceiling <= floor:
        raise Impossible(_too_small(cell, floor))

    def look(time: float) -> tuple[bool, float]:
        """Return whether all fit, and what one more second changes, > 0 where a longer round needs more."""
        answer = respond_within(cell, time, 1.0, None, least=True)
        return bool(answer.bandwidth.sum() <= cell.bandwidth), -float(answer.time_price.sum())

    low, high, inside = floor, ceiling, None
    for _ in range(ROUNDS):  # towards the least bandwidth, until some round fits
        middle = low + 0.5 * (high - low)
        fits, slope = look(middle)
        if fits:
            inside = middle
            break
        low, high = (middle, high) if slope < 0 else (low, middle)
        if high - low <= CLOSE * high:
            break
    if inside is None:
        raise Impossible(_too_small(cell, 0.5 * (low + high)))
    ends = []
    for end in (floor, ceiling):
        good, bad = inside, end
        while abs(good - bad) > CLOSE * good:
            middle = good + 0.5 * (bad - good)
            good, bad = (middle, bad) if look(middle)[0] else (good, middle)
        ends.append(good)
    return ends[0], ends[1]


def _too_small(cell: Cell, time: float) -> str:
    idle = cell.idle_power * (time + cell.constant)
    worst = int(np.argmax(np.where(np.isfinite(cell.energy_cap), idle / cell.energy_cap, 0.0)))
    return (
        f"the energy caps are too small for any round: one of {time + cell.constant:.4g} s takes {idle[worst]:.4g} J "
        f"of idle power from a device that has {cell.energy_cap[worst]:.4g} J for all; raise the cap, give more "
        "bandwidth, fewer bits or an earlier cut"
    )
