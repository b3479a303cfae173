"""Energy budgets over many rounds against the best plans that keep them: ``python benchmarks/budgets.py [--json]``.

Random cells (2 to 12 devices, bands, weights, fixed or chosen clocks, Rayleigh fading floored at -20 dB), each with a
budget per device between what it needs at least and somewhat above what it uses without one. Prices are found over 24
other rounds, then ``--rounds`` are planned one by one, as a simulated run does. Columns, over cells:

    energy      mean J a round of the worst device over its budget
    objective   mean objective over a lower bound of every plan of the same channels that keeps the budgets (weak
                duality, at prices settled on these very channels)
    cold        the same with queues that begin empty
    loose       time and energy of a run with budgets that never bind over those without budgets
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from common import introduce, machine, show

from sflam.allocate.cell.frugal import least_energy
from sflam.allocate.cell.market import Market
from sflam.allocate.cell.online import Controller, Use, settled_prices
from sflam.allocate.cell.problem import Problem
from sflam.cost.reference import ref_a_workload
from sflam.network.network import Floats
from sflam.network.reference import ref_a
from sflam.simulate.warm import IMAGINED, patience_of

WORK = ref_a_workload()
FLOOR = 1e-2


class Rounds:
    """A cell over rounds of fading.

    Args:
        problem: without fading.
        fading: [n, K].
    """

    def __init__(self, problem: Problem, fading: Floats) -> None:
        self.problem, self.fading = problem, fading

    def __iter__(self) -> Any:
        return iter(self.fading * self.problem.network.gain[0])

    def at(self, gains: Floats) -> Problem:
        """Return the problem of a round."""
        return self.problem.change(network=replace(self.problem.network, gain=gains[None]))

    def mean(self, prices: Floats) -> tuple[Floats, float, float]:
        """Return J [K], seconds, and the objective without prices of a round, on average, at fixed prices [K]."""
        energy, seconds, value = np.zeros(len(self.problem)), 0.0, 0.0
        for gains in self:
            cell = self.at(gains).cell
            priced = replace(cell, weight=cell.weight + prices)
            found = Market(priced).solve()
            spent = found.answer.energy(priced) + priced.compute_energy(found.answer.compute)
            energy += spent
            seconds += found.time
            value += cell.latency_weight * found.time + float(cell.weight @ spent)
        count = len(self.fading)
        return energy / count, seconds / count, value / count

    def settled(self, budgets: Floats) -> tuple[Floats, Use]:
        """Return the prices at which these rounds keep budgets, and what they use without."""
        problem = self.problem

        def use(prices: Floats) -> Use:
            energy, seconds, _ = self.mean(prices)
            return Use(energy=energy, time_cost=problem.latency_weight * seconds)

        return settled_prices(use, budgets, (1 - problem.latency_weight) * problem.network.energy_weight)

    def run(self, controller: Controller) -> tuple[float, float]:
        """Return mean seconds and the mean objective without prices of the rounds planned one by one."""
        problem, seconds, value = self.problem, 0.0, 0.0
        weight = (1 - problem.latency_weight) * problem.network.energy_weight
        for gains in self:
            plan = controller.step(gains)
            given = plan.devices
            spent = given.transmit_j + (given.compute_j if problem.choose_clocks else 0.0)
            seconds += plan.latency
            value += problem.latency_weight * plan.latency + float(weight @ spent)
        return seconds / len(self.fading), value / len(self.fading)


def random_cell(seed: int, rounds: int) -> tuple[Rounds, Rounds, Floats]:
    """Return earlier rounds, the rounds of a run, and budgets [K]."""
    draw = np.random.default_rng(seed)
    count = int(draw.integers(2, 13))
    network = ref_a(count, seed, bandwidth=1e6 * count * 10 ** draw.uniform(-0.5, 0.5), fading=False)
    problem = Problem(
        network=network,
        workload=WORK,
        choose_clocks=bool(draw.random() < 0.5),
        latency_weight=float(draw.uniform(0.05, 0.95)),
    )
    fading = np.maximum(draw.exponential(1, (IMAGINED + rounds, count)), FLOOR)
    earlier, run = Rounds(problem, fading[:IMAGINED]), Rounds(problem, fading[IMAGINED:])
    free = earlier.mean(np.zeros(count))[0]
    least = np.mean([least_energy(run.at(gains)) for gains in run], axis=0)
    return earlier, run, np.maximum(least * 1.1, least + (free - least) * draw.uniform(0.3, 1.1, count))


def measured(seed: int, rounds: int) -> dict[str, Any]:
    """Return the row of a cell."""
    earlier, run, budgets = random_cell(seed, rounds)
    problem = run.problem
    began = time.process_time()
    prices, free = earlier.settled(budgets)
    found_s = time.process_time() - began
    weight = (1 - problem.latency_weight) * problem.network.energy_weight
    patience = patience_of(prices, budgets, weight, free.scale, rounds)
    warm = Controller(problem, budgets, patience, patience * prices)
    cold = Controller(problem, budgets, patience)
    _, value = run.run(warm)
    _, cold_value = run.run(cold)
    best, _ = run.settled(budgets)
    energy, _, objective = run.mean(best)
    bound = objective + float(best @ (energy - budgets))
    free_energy, free_s, _ = run.mean(np.zeros(len(problem)))
    loose = Controller(problem, 10 * free_energy, patience * 10 * free_energy / budgets)
    loose_s, _ = run.run(loose)
    return {
        "cell": seed,
        "devices": len(problem),
        "lam": round(problem.latency_weight, 2),
        "clocks": problem.choose_clocks,
        "energy": round(float(warm.excess.max()), 4),
        "objective": round(value / bound, 4),
        "cold energy": round(float(cold.excess.max()), 4),
        "cold objective": round(cold_value / bound, 4),
        "loose time": round(loose_s / free_s, 5),
        "loose energy": round(float(loose.spent.sum() / rounds / free_energy.sum()), 5),
        "prices, CPU s": round(found_s, 2),
    }


def summary(rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the median and the worst of every column that is a ratio."""
    names = ("energy", "objective", "cold energy", "cold objective", "loose time", "loose energy")
    return [
        {"over cells": word} | {name: round(float(of([row[name] for row in rows])), 4) for name in names}
        for word, of in (("median", np.median), ("worst", np.max))
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--cells", type=int, default=50)
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of tables")
    args = options.parse_args()
    introduce(machine(), as_json=args.json)
    rows = []
    for seed in range(args.cells):
        rows.append(measured(seed, args.rounds))
        show(rows[-1:], as_json=True, title="")
    show(summary(rows), as_json=args.json, title=f"{args.cells} cells, {args.rounds} rounds")


if __name__ == "__main__":
    main()
