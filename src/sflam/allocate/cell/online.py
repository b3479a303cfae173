"""Planning round by round under fading, with energy budgets that hold on average: drift plus penalty (section 4).

Each device has a queue Z_k of energy spent beyond its budget (4.1). A round minimises V_k times what a round without
budgets minimises, plus Z_k E_k: the price of a joule beyond budget, y_k = Z_k / V_k, is added to the weight of energy,
and the problem stays (2.1), solved exactly. Empty queues give the plan without budgets. The mean objective approaches
the best that keeps the budgets within D / V, while queues grow with V (4.2). Arrays [K].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sflam.allocate.cell.optimal import settle
from sflam.allocate.cell.problem import Problem
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found, make_plan, no_plan, score
from sflam.errors import AllocationError
from sflam.network.network import Floats
from sflam.plan import Plan, Status

PASSES = 12
CLOSE = 0.02
"""Relative distance of mean energies from budgets at which prices have settled."""
POWER = 1.3
"""Of what is missing, by which weights change at first: energy falls slower than its weight rises."""
POWERS = (0.8, 4.0)
STRIDE = 10.0
"""A weight changes at most so many times in a pass."""
FIRST = 0.3
"""Weight of a joule that a price begins with, over what all energy of a round must cost to be worth its time."""
SEEN = 0.02
"""Change of ln W from which the change of ln E says how steep it is."""


class Controller:
    """Plans rounds one by one.

    Args:
        problem: the network without fading. A deadline bounds every round.
        budgets: [K] J a round, on average.
        patience: V, J per unit of the objective, one or [K]: more follows the objective closer, and budgets slower.
        queues: [K] Z(0), J; ``patience`` times :func:`settled_prices` spares the start-up, in which budgets are
            exceeded.

    Attributes:
        queues: [K] Z, J.
        spent: [K] J so far.
        rounds: rounds so far.

    Raises:
        AllocationError: budgets or patience that are not positive.
    """

    def __init__(
        self, problem: Problem, budgets: Floats, patience: float | Floats, queues: Floats | None = None
    ) -> None:
        count = len(problem)
        if budgets.shape != (count,) or not (np.isfinite(budgets) & (budgets > 0)).all():
            raise AllocationError(f"budgets must be {count} positive numbers of joules")
        if not ((np.asarray(patience) > 0) & np.isfinite(patience)).all():
            raise AllocationError(f"patience is {patience}; it must be positive and finite")
        if queues is not None and (queues.shape != (count,) or not (queues >= 0).all()):
            raise AllocationError(f"queues must be {count} numbers of 0 or more")
        self.problem = problem
        self.budgets = budgets
        self.patience = patience
        self.queues = np.zeros(count) if queues is None else queues.astype(float)
        self.spent = np.zeros(count)
        self.rounds = 0
        self._last = 0.0, 0.0  # price and time

    @property
    def prices(self) -> Floats:
        """[K] y = Z / V, 1/J: what a joule costs beside its weight."""
        return self.queues / self.patience

    def step(self, gains: Floats) -> Plan:
        """Return the plan of the next round for gains [K], and update the queues as if it were carried out.

        The plan's objective is the problem's own plus sum y_k E_k. An infeasible round changes no queue.

        Raises:
            AllocationError: gains that are not positive.
        """
        gain = self.problem.network.gain.copy()
        gain[self.problem.server] = gains
        now = self.problem.change(network=replace(self.problem.network, gain=gain))
        try:
            idle = float(self.prices @ now.network.static_power)
            heard = float(self.prices @ now.received_j)
            free = now.cell
            cell = replace(free, weight=free.weight + self.prices, latency_weight=free.latency_weight + idle)
            solution = settle(now, cell, *self._last)
        except Impossible as impossible:
            return no_plan("online", *impossible.advice)
        self._last = solution.price, solution.time
        shares = solution.shares
        plan, spent = make_plan("online", Found(problem=now, shares=shares)), score(now, shares)
        energy = spent.transmit_energy + (spent.compute_energy if now.choose_clocks else 0.0)
        energy = energy + spent.idle_energy + spent.receive_energy
        weighted = plan.objective + now.rounds * float(self.prices @ energy)
        bound = min(now.total(solution.lower_bound + idle * now.base_s + heard), weighted)
        self.queues = np.maximum(self.queues + energy - self.budgets, 0.0)
        self.spent += energy
        self.rounds += 1
        status = Status.OPTIMAL if plan.status is Status.FEASIBLE else plan.status
        return replace(plan, objective=weighted, lower_bound=bound, status=status, history=(weighted,))

    @property
    def excess(self) -> Floats:
        """[K] mean energy of a round over its budget, 1 where exactly met."""
        return self.spent / (max(self.rounds, 1) * self.budgets)


@dataclass(frozen=True, kw_only=True, eq=False)
class Use:
    """What rounds at certain prices use: [K] J a round on average, and lam T of a round on average."""

    energy: Floats
    time_cost: float

    @property
    def scale(self) -> float:
        """The price of a joule, 1/J, at which all energy of a round would cost as much as its time."""
        return self.time_cost / max(float(self.energy.sum()), np.finfo(float).tiny)


def settled_prices(use: Callable[[Floats], Use], budgets: Floats, weight: Floats) -> tuple[Floats, Use]:
    """Return prices y [K], 1/J, at which rounds use their budgets on average, and what rounds without prices use.

    They are the multipliers of the budgets over many rounds: 0 where a budget does not bind.

    Args:
        use: what rounds at given prices use.
        budgets: [K] J a round, on average.
        weight: [K] W_k of energy in the objective, 1/J.
    """
    prices, power = np.zeros_like(budgets), np.full_like(budgets, POWER)
    free = found = use(prices)
    for number in range(PASSES):
        ratio = found.energy / budgets
        if ((np.abs(ratio - 1) < CLOSE) | ((prices == 0) & (ratio < 1 + CLOSE))).all():
            break
        before = np.maximum(weight + prices, np.where(ratio > 1, FIRST * free.scale, 0.0))
        energy = found.energy
        after = np.maximum(before * np.clip(ratio**power, 1 / STRIDE, STRIDE), weight)
        prices = after - weight
        found = use(prices)
        if number:  # the first weights may have been none
            power = _powers(power, before, after, energy, found.energy)
    return prices, free


def _powers(power: Floats, before: Floats, after: Floats, had: Floats, has: Floats) -> Floats:
    """Return -d ln W / d ln E [K] as the last pass shows it, within bounds; as it was where weights hardly moved."""
    with np.errstate(divide="ignore", invalid="ignore"):
        moved, fell = np.log(after / before), -np.log(has / had)
        steep = np.where(fell * moved > 0, moved / fell, POWERS[1])
    return np.where(np.abs(moved) > SEEN, np.clip(steep, *POWERS), power)
