"""When a round of devices of which some fail or are late is over, and what each spent until then. n devices.

A device that ends its part at ``end`` delivers, unless it is ``gone`` before. With a quorum Q > 0, the round closes
``grace`` s after the Q-th delivery, or with the last device at work where that is earlier; without one, with the last.
What a device was doing when it stopped is charged in proportion: it fetches adapters, makes its steps, hands adapters
on, one after another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sflam.cost.energy import idle_j
from sflam.network.network import Floats
from sflam.simulate.clock import RoundCost

ROUNDING = 1e-12
"""Relative difference between two instants that are one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Close:
    """How a round ended.

    Attributes:
        seconds: from its opening to its close.
        stops: [n] s at which each device delivered, failed, or was left out at the close.
        delivered: [n] whether its result is in the round.
        failed: [n] whether it failed or left before the close.
    """

    seconds: float
    stops: Floats
    delivered: NDArray[np.bool_]
    failed: NDArray[np.bool_]

    @property
    def late(self) -> NDArray[np.bool_]:
        """[n] whether it was still at work at the close."""
        return ~(self.delivered | self.failed)


def closing(ends: Floats, gone: Floats, quorum: int = 0, grace: float = 0.0) -> Close:
    """Return how a round ends.

    Args:
        ends: [n] s after its opening at which each device would deliver.
        gone: [n] s at which it fails or leaves; inf for not at all.
        quorum: deliveries after which the round goes on for ``grace`` s alone; 0 for none.
        grace: s.
    """
    delivers = ends <= gone * (1 + ROUNDING)
    seconds = float(np.minimum(ends, gone).max())
    if 0 < quorum <= int(delivers.sum()):
        seconds = min(seconds, float(np.sort(ends[delivers])[quorum - 1]) + grace)
    delivered = delivers & (ends <= seconds * (1 + ROUNDING))
    failed = ~delivers & (gone <= seconds * (1 + ROUNDING))
    stops = np.where(delivered, ends, np.where(failed, np.minimum(gone, seconds), seconds))
    return Close(seconds=seconds, stops=stops, delivered=delivered, failed=failed)


def steps_share(cost: RoundCost, stops: Floats) -> Floats:
    """Return the share [n] of its steps that each device made until it stopped, s after it began."""
    return _share(stops - cost.fetch_s, cost.finish)


def until(cost: RoundCost, stops: Floats, static_power: Floats, present: Floats, seconds: float) -> RoundCost:
    """Return the cost of a round that each device left at ``stops``, or after which it waited for the others.

    Args:
        cost: of the whole round, its adapters inside of it.
        stops: [n] s.
        static_power: [n] W.
        present: [n] s for which each drew it.
        seconds: of the round.
    """
    steps = steps_share(cost, stops)
    fetched = _share(stops, cost.fetch_s + np.zeros_like(stops))
    handed = _share(stops - cost.fetch_s - cost.finish, cost.adapters - cost.fetch_s)
    received = (cost.receive_j - cost.fetch_j) * steps + cost.fetch_j * fetched
    idle = idle_j(static_power, present)
    found = replace(
        cost,
        compute_s=cost.compute_s * steps,
        up_s=cost.up_s * steps,
        server_s=cost.server_s * steps,
        down_s=cost.down_s * steps,
        adapters=cost.fetch_s * fetched + (cost.adapters - cost.fetch_s) * handed,
        compute_j=cost.compute_j * steps,
        transmit_j=cost.transmit_j * steps,
        adapter_j=cost.adapter_j * handed,
        receive_j=received,
        server_j=cost.server_j * float(steps.mean()),
        idle_j=idle,
        inside=True,
        ends=None,
        stages_s=seconds,
    )
    before, after = (each.device_j - each.idle_j for each in (cost, found))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(before > 0, after / before, 0.0)
    return replace(found, counted=(cost.counted - cost.idle_j) * share + idle)


def _share(done: Floats, whole: Floats) -> Floats:
    """Return the share [n] of what takes ``whole`` s that is done after ``done`` s; all of what takes none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(whole > 0, np.clip(done / whole, 0.0, 1.0), done >= 0).astype(float)
    return np.where(found > 1 - ROUNDING, 1.0, found)
