"""Planning round by round under fading, with energy budgets that hold on average: drift plus penalty (section 4).

Each device has a queue Z_k of energy spent beyond its budget (4.1). A round is planned with latency weight V and
energy weights Z_k, exactly (Theorem 1): the energy of a device over budget weighs more. Mean
round time approaches the best within D / V, while queues grow with V (4.2).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sflam.allocate.cell.optimal import Market
from sflam.allocate.cell.problem import Problem
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found, make_plan, no_plan, score
from sflam.errors import AllocationError
from sflam.network.network import Floats
from sflam.plan import Plan, Status

WARM_UP = 0.02  # V of the short run that finds where the queues settle


class Controller:
    """Plans rounds one by one.

    Args:
        problem: the network without fading; its weights are not used. A deadline bounds every round.
        budgets: [K] J a round, on average.
        patience: V, J/s: what a second is worth against energy beyond budget.
        queues: [K] Z(0), J; ``patience`` times ``warm_queues`` spares the start-up, in which budgets are exceeded.

    Attributes:
        queues: [K] Z, J.
        spent: [K] J so far.
        rounds: rounds so far.

    Raises:
        AllocationError: budgets or patience that are not positive.
    """

    def __init__(
        self, problem: Problem, budgets: Floats, patience: float, queues: Floats | None = None
    ) -> None:
        count = len(problem)
        if budgets.shape != (count,) or not (np.isfinite(budgets) & (budgets > 0)).all():
            raise AllocationError(f"budgets must be {count} positive numbers of joules")
        if not (patience > 0 and np.isfinite(patience)):
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

    def step(self, gains: Floats) -> Plan:
        """Return the plan of the next round for gains [K], and update the queues as if it were carried out.

        The plan's objective is V (T0 + T) + sum Z_k E_k. An infeasible round changes no queue.

        Raises:
            AllocationError: gains that are not positive.
        """
        gain = self.problem.network.gain.copy()
        gain[self.problem.server] = gains
        now = self.problem.change(network=replace(self.problem.network, gain=gain))
        try:
            cell = replace(now.cell, latency_weight=self.patience, weight=self.queues)
            solution = Market(cell, *self._last).solve()
        except Impossible as impossible:
            return no_plan("online", *impossible.advice)
        self._last = solution.price, solution.time
        shares = solution.shares(cell)
        plan, spent = make_plan("online", Found(problem=now, shares=shares)), score(now, shares)
        energy = spent.transmit_energy + (spent.compute_energy if now.choose_clocks else 0.0)
        weighted = self.patience * spent.latency + float(self.queues @ energy)
        bound = solution.lower_bound + self.patience * now.base_s
        self.queues = np.maximum(self.queues + energy - self.budgets, 0.0)
        self.spent += energy
        self.rounds += 1
        status = Status.OPTIMAL if plan.status is Status.FEASIBLE else plan.status
        return replace(plan, objective=weighted, lower_bound=bound, status=status, history=(weighted,))

    @property
    def excess(self) -> Floats:
        """[K] mean energy of a round over its budget, 1 where exactly met."""
        return self.spent / (max(self.rounds, 1) * self.budgets)


def warm_queues(problem: Problem, budgets: Floats, gains: Floats) -> Floats:
    """Return [K] zhat: queues per unit of V after a short run at small V over gains [n, K]."""
    controller = Controller(problem, budgets, WARM_UP)
    for each in gains:
        controller.step(each)
    return controller.queues / WARM_UP
