"""By how much a round broke the limits of its plan, as one may whose plan is older than its channel; in full."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sflam.allocate.settings import PlanSettings
from sflam.network.network import Floats
from sflam.simulate.clock import RoundCost

ROUNDING = 1e-9
"""Relative excess that is none."""


def late_s(wish: PlanSettings, paid: Sequence[RoundCost]) -> float:
    """Return the s by which the longest of a round's turns was longer than the deadline of each."""
    longest = max(cost.whole_s for cost in paid)
    return longest - wish.deadline if wish.deadline and longest > wish.deadline * (1 + ROUNDING) else 0.0


def beyond_j(wish: PlanSettings, cost: RoundCost) -> Floats:
    """Return the most J, [K], by which each device of a turn broke one of its caps."""
    found = np.zeros(len(cost.compute_j))
    limits = {
        "radio_cap": cost.radio_j,
        "compute_cap": cost.compute_j,
        "energy_cap": cost.device_j,
    }
    for name, spent in limits.items():
        if cap := getattr(wish, name):
            found = np.maximum(found, np.where(spent > cap * (1 + ROUNDING), spent - cap, 0.0))
    return found
