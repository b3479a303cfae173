"""Queues to begin a run with budgets with, so that its first rounds need not exceed them: (4.1) over imagined rounds.

What a second is worth against energy, patience V, sets only how high queues settle: Z is near V z, whatever V is. So
imagined rounds with a patience small enough to settle within a few of them find z, and V z is where the run begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sflam.errors import AllocationError
from sflam.network.network import Floats, Network
from sflam.simulate.planner import Planner

IMAGINED = 24
"""Rounds simulated at one patience."""
SETTLED = 0.25
"""Queues have settled when what the rounds used beyond the budgets is at most this share of them."""
SMALLER = 6.0
TRIES = 6


def warm_queues(planner: Planner, rounds: Sequence[tuple[Network, tuple[int, ...]]]) -> Floats:
    """Return [K] J: near where the queues of a run would settle; 0 where an imagined round cannot be planned.

    Args:
        planner: of the run; it is left as it was.
        rounds: the network and the devices of each imagined round.
    """
    before, patience = planner.queues, planner.patience
    budget = planner.job.plan.budget
    found = np.zeros_like(before)
    try:
        for _ in range(TRIES):
            planner.queues = np.zeros_like(before)
            late = []
            for network, devices in rounds:
                turn, _ = planner.ask(0, network, devices)
                if turn is not None:
                    given = turn.plan.devices
                    computing = given.compute_j if "clock" in planner.job.plan.optimize else 0.0
                    planner.spend(turn.devices, given.transmit_j + computing)
                late.append(planner.queues)
            # Settled queues go up and down by about a budget a round; their mean does not.
            found = np.mean(late[len(late) // 2 :], axis=0) * patience / planner.patience
            if planner.queues.max() <= SETTLED * budget * len(rounds):
                break
            planner.patience /= SMALLER
    except AllocationError:
        return np.zeros_like(before)
    finally:
        planner.queues, planner.patience = before, patience
    return found
