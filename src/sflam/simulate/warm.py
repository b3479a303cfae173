"""What a run with energy budgets begins with: prices that keep them over imagined rounds, and how fast queues move.

A budget that the least energy of the run's own rounds exceeds is refused, with that number. Arrays [K].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sflam.allocate.cell.frugal import least_energy
from sflam.allocate.cell.online import Use, settled_prices
from sflam.errors import AllocationError
from sflam.network.network import Floats, Network
from sflam.simulate.cell_planner import CellPlanner
from sflam.simulate.draws import Draws
from sflam.simulate.planner import Unkept
from sflam.units import human_si

IMAGINED = 24
"""Rounds over which prices are found."""
HELD = 0.025
"""A queue of this share of a run's budgets doubles the weight of energy: what is left in queues is exceeded."""
FEWEST = 2.0
"""Budgets at which they settle at least."""
LIMITS = ("deadline", "radio_cap", "compute_cap", "energy_cap")
"""Of plans, for which devices may be left out of a round."""
LITTLE = 0.01
"""Of the price at which all energy costs as much as its time: less is no price to begin with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ahead:
    """A round before it is run.

    Attributes:
        network: as it will be.
        devices: that are to take part.
        draws: what their mini-batches will hold; None where that is not known, or does not count.
        unkept: what they still have to make, where activations are kept; None for all.
        waited: as ``draws``, where devices wait for each other.
    """

    network: Network
    devices: tuple[int, ...]
    draws: Draws | None = None
    unkept: Unkept | None = None
    waited: Draws | None = None

    def shown_to(self, planner: CellPlanner) -> None:
        """Let a planner plan this round."""
        planner.draws, planner.unkept, planner.waited = self.draws, self.unkept, self.waited


def begin(planner: CellPlanner, rounds: Sequence[Ahead]) -> None:
    """Give a planner the queues and patience that its run begins with; queues are empty if a round cannot be planned.

    Args:
        planner: of the run.
        rounds: imagined ones.
    """
    wish, learn = planner.job.plan, planner.job.learn
    count = len(planner.placements)
    budgets = np.full(count, wish.budget)
    weight = (1 - wish.latency_weight) * rounds[0].network.energy_weight

    def use(prices: Floats) -> Use:
        planner.patience, planner.queues = np.ones(count), prices
        energy, time_cost = np.zeros(count), 0.0
        for ahead in rounds:
            ahead.shown_to(planner)
            turn, _ = planner.ask(0, ahead.network, ahead.devices)
            if turn is not None:
                given = turn.plan.devices
                computing = given.compute_j if "clock" in wish.optimize else 0.0
                energy[list(turn.devices)] += given.transmit_j + computing + given.idle_j + given.receive_j
                time_cost += wish.latency_weight * turn.plan.latency
        return Use(energy=energy / len(rounds), time_cost=time_cost / len(rounds))

    try:
        prices, free = settled_prices(use, budgets, weight)
    except AllocationError:  # the run itself says which round cannot be planned, and why
        prices, free = np.zeros(count), Use(energy=budgets, time_cost=wish.latency_weight)
    if wish.patience:
        planner.patience = np.full(count, wish.patience)
    else:
        planner.patience = patience_of(prices, budgets, weight, free.scale, learn.rounds)
    planner.queues = planner.patience * prices


def patience_of(prices: Floats, budgets: Floats, weight: Floats, scale: float, rounds: int) -> Floats:
    """Return V [K], J per unit of the objective, at which queues of a few budgets double the weight of energy.

    Args:
        prices: y, 1/J, that are expected.
        budgets: J a round.
        weight: W of energy in the objective, 1/J.
        scale: 1/J, of a price where neither says what is much.
        rounds: of the run.
    """
    much = np.maximum(prices + weight, LITTLE * scale)
    patience: Floats = max(FEWEST, HELD * rounds) * budgets / np.maximum(much, np.finfo(float).tiny)
    return patience


def expect_enough(planner: CellPlanner, rounds: Sequence[Ahead]) -> None:
    """Raise AllocationError where a budget is below what its device must use in these rounds at least.

    Args:
        planner: of the run.
        rounds: all of the run's. What they send and make is at most what it really will be.
    """
    wish = planner.job.plan
    budget, need = wish.budget, np.zeros(len(planner.placements))
    leaves = wish.late == "drop" and any(getattr(wish, name) for name in LIMITS)
    for ahead in rounds:
        ahead.shown_to(planner)
        taking = ahead.devices
        if leaves:  # devices that are left out of a round use nothing
            turn, _ = planner.ask(0, ahead.network, taking)
            taking = turn.devices if turn else ()
        if taking:
            least = least_energy(planner.problem(ahead.network, taking))
            need[list(taking)] += np.where(np.isfinite(least), least, 0.0) / len(rounds)
    worst = int(np.argmax(need))
    if need[worst] > budget:
        raise AllocationError(
            f"plan.budget is {human_si(budget, 'J')}, but device {worst} needs {human_si(float(need[worst]), 'J')} a "
            f"round on average at least, in the round that is best for it and over the whole band; raise it, cut "
            "earlier, send fewer bits, or let fewer devices take part"
        )
