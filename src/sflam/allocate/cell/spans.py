"""Round times at which devices fit the band while what they draw in waiting takes from their caps, E + P0 T <= cap.

The least bandwidth of all devices together is convex in T: too short a round needs more of it, and one that leaves too
little of a cap does too. The rounds that fit are an interval.
"""

from __future__ import annotations

import numpy as np

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.energy_caps import respond_within
from sflam.allocate.curves import TINY
from sflam.allocate.limits import Impossible
from sflam.network.network import Floats

ROUNDS = 200
CLOSE = 1e-13
EVEN = 1e-12  # ln of what is needed over what there is, that is no more
NEVER = 700.0  # ln of what is needed over what there is, where no bandwidth suffices


def fitting(cell: Cell, floor: float) -> tuple[float, float]:
    """Return the shortest and the longest round, s, that hold caps which shrink with the round.

    Args:
        cell: of which some cap leaves less, the longer the round.
        floor: s that no round can be shorter than.

    Raises:
        Impossible: none does.
    """
    ceiling = float(longest_waits(cell).min())
    if ceiling <= floor:
        raise Impossible(_too_small(cell, floor))
    fits, sooner = False, min(ceiling, cell.deadline)
    if floor < sooner < ceiling:  # far beyond the deadline, distances from the shortest round are rounded
        inside, fits = easiest(cell, floor, sooner)
    if not fits:
        inside, fits = easiest(cell, floor, ceiling)
    if not fits:
        raise Impossible(_too_small(cell, inside))
    return _edge(cell, inside, floor), _edge(cell, inside, ceiling)


def _edge(cell: Cell, inside: float, end: float) -> float:
    """Return the last round, s, from one that fits towards ``end``, that fits too."""
    from scipy.optimize import brentq

    towards = float(np.sign(end - inside))

    def excess(log_far: float) -> float:
        """Return ln of what is needed over what there is: of either sign once, for it is convex in the round."""
        answer = respond_within(cell, end - towards * float(np.exp(log_far)), 1.0, None, least=True)
        return min(float(np.log(answer.bandwidth.sum() / cell.bandwidth)), NEVER)

    whole = float(np.log(abs(end - inside)))
    low = whole + np.log(CLOSE)
    if excess(low) <= 0:
        return end - towards * float(np.exp(low))
    far = brentq(excess, low, whole, xtol=1e-15, rtol=8 * np.finfo(float).eps)
    step = float(np.spacing(abs(far)))
    while excess(far) > EVEN and far < whole:  # a rounding error of the round can be much of the band
        far, step = min(far + step, whole), 2 * step
    return end - towards * float(np.exp(far))


def longest_waits(cell: Cell) -> Floats:
    """Return the s at which waiting alone uses up each device's cap, [K]; inf where it never does."""
    with np.errstate(divide="ignore", invalid="ignore"):
        spent = np.where(cell.idle_power > 0, cell.energy_cap / cell.idle_power, np.inf)
    left: Floats = spent - cell.constant
    return left


def crowding(cell: Cell) -> Floats:
    """Return how much each device stands in the way of all others, [K], where no round holds all caps.

    Its least bandwidth in the round that asks for least of it together; or how soon its cap is used up, where another
    device needs longer than that.
    """
    waits, floor = longest_waits(cell), float((cell.busy + cell.soonest(cell.payload)).max())
    ceiling = min(float(waits.min()), cell.deadline)
    if ceiling <= floor:
        return 1 / np.maximum(waits, TINY)
    time, _ = easiest(cell, floor, ceiling)
    return respond_within(cell, time, 1.0, None, least=True).bandwidth


def easiest(cell: Cell, floor: float, ceiling: float) -> tuple[float, bool]:
    """Return a round, s, between two in which all fit, and True; else the one with least bandwidth, and False."""
    low, high = floor, ceiling
    for _ in range(ROUNDS):
        middle = low + 0.5 * (high - low)
        fits, slope = _look(cell, middle)
        if fits:
            return middle, True
        low, high = (middle, high) if slope < 0 else (low, middle)
        if high - low <= CLOSE * high:
            break
    return low + 0.5 * (high - low), False


def _look(cell: Cell, time: float) -> tuple[bool, float]:
    """Return whether all fit in a round, and what one more second changes, > 0 where a longer one needs more."""
    answer = respond_within(cell, time, 1.0, None, least=True)
    return bool(answer.bandwidth.sum() <= cell.bandwidth), -float(answer.time_price.sum())


def _too_small(cell: Cell, time: float) -> str:
    idle = cell.idle_power * (time + cell.constant)
    worst = int(np.argmax(np.where(np.isfinite(cell.energy_cap), idle / cell.energy_cap, 0.0)))
    return (
        f"the energy caps are too small for any round: one of {time + cell.constant:.4g} s takes {idle[worst]:.4g} J "
        f"of idle power from a device that has {cell.energy_cap[worst]:.4g} J for all; raise the cap, give more "
        "bandwidth, fewer bits or an earlier cut"
    )
