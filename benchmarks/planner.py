"""Time, memory and quality of the planner: ``python benchmarks/planner.py [--json]``.

Three tables over the reference cell (20 MHz, 10-250 m, ViT-B/16, 8 bits):

    size       seconds, peak MB (tracemalloc, in a run of its own) and certified gap against the number of devices
    solvers    the exact solver against SLSQP in bandwidth and power, and against cvxpy with Clarabel
    baselines  each method's objective over the optimum, K = 20, mean of three seeds

CPU seconds of one thread, the least of ``--repeats`` runs.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from sflam.allocate.cell import baselines, bcd, bits, optimal, oracle
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import Found, make_plan
from sflam.cost.reference import ref_a_workload
from sflam.errors import AllocationError
from sflam.network.reference import ref_a
from sflam.plan import Plan

WORK = ref_a_workload()


def cell(devices: int, seed: int = 0, *, clocks: bool = True, **changes: Any) -> Problem:
    """Return the reference cell; from a thousand devices on with 0.1 MHz a device."""
    band = 20e6 if devices < 1000 else 1e5 * devices
    return Problem(
        network=ref_a(devices, seed, bandwidth=band), workload=WORK, choose_clocks=clocks, **changes
    )


def sensitive(devices: int, seed: int = 0, *, clocks: bool = False) -> Problem:
    """Return the same, at full speed unless clocks are chosen, quantization noise slowing every device differently."""
    draw = np.random.default_rng(1000 + seed).standard_normal(devices)
    return cell(devices, seed, clocks=clocks, sensitivity=20 / devices * np.exp(draw))


def measured(run: Callable[[], Plan], repeats: int) -> tuple[Plan, float, float]:
    """Return the plan, the least CPU seconds, and the peak MB."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        plan = run()
        seconds.append(time.process_time() - began)
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return plan, min(seconds), peak


def sizes(counts: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """Return a row per number of devices and method."""
    rows = []
    for count in counts:
        runs = {
            "optimal, fixed clocks": lambda count=count: optimal.solve(cell(count, clocks=False)),
            "optimal": lambda count=count: optimal.solve(cell(count)),
            "bits, uncertified": lambda count=count: bits.solve(sensitive(count), certify=False),
            "bits and clocks": lambda count=count: bits.solve(sensitive(count, clocks=True), certify=False),
        }
        if count <= 1000:
            runs["bits, certified"] = lambda count=count: bits.solve(sensitive(count), certify=True)
        for name, run in runs.items():
            plan, seconds, peak = measured(run, repeats if count < 10**5 else 1)
            gap = plan.gap if np.isfinite(plan.gap) else None
            rows.append(
                {
                    "devices": count,
                    "method": name,
                    "objective": plan.objective,
                    "cpu_s": seconds,
                    "peak_mb": peak,
                    "gap": gap,
                }
            )
    return rows


def slsqp(problem: Problem) -> Plan:
    """Solve in bandwidth and power by sequential quadratic programming, from equal shares."""
    from scipy.optimize import minimize

    part, count = problem.cell, len(problem)

    def transmit(v: Any) -> Any:
        b, p = v[:count] * part.bandwidth, v[count:-1] * part.max_power
        return part.payload / (b * np.log1p(p / (part.noise * b)))

    def cost(v: Any) -> float:
        spent = part.weight @ (v[count:-1] * part.max_power * transmit(v))
        return float(part.latency_weight * v[-1] + spent)

    start = np.r_[np.full(count, 1 / count), np.ones(count), 0.0]
    start[-1] = (part.busy + transmit(start)).max()
    found = minimize(
        cost,
        start,
        method="SLSQP",
        bounds=[(1e-4, 1)] * (2 * count) + [(0, None)],
        constraints=[
            {"type": "ineq", "fun": lambda v: v[-1] - part.busy - transmit(v)},
            {"type": "ineq", "fun": lambda v: 1 - v[:count].sum()},
        ],
        options={"maxiter": 300, "ftol": 1e-12},
    )
    b = np.maximum(found.x[:count], 1e-6)
    told = Shares(
        bandwidth=b / b.sum() * part.bandwidth,
        power=np.clip(found.x[count:-1], 1e-6, 1) * part.max_power,
        clock=problem.network.max_clock,
    )
    return make_plan("slsqp", Found(problem=problem, shares=told))


def solvers(counts: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """Return a row per number of devices and solver, fixed clocks."""
    rows = []
    for count in counts:
        problem = cell(count, clocks=False)
        best = optimal.solve(problem).objective
        runs: dict[str, Callable[[Problem], Plan]] = {"exact": optimal.solve}
        if count <= 50:
            runs["slsqp"] = slsqp
        if count <= 200:
            runs["cvxpy + clarabel"] = oracle.solve
        for name, run in runs.items():
            try:
                # a copy each time: the arrays of a problem are computed once
                again = functools.partial(lambda run, problem: run(problem.change()), run, problem)
                plan, seconds, _ = measured(again, 1 if count > 20 else repeats)
                ratio: float | str = plan.objective / best - 1
            except AllocationError as error:
                seconds, ratio = float("nan"), str(error)
            rows.append({"devices": count, "solver": name, "cpu_s": seconds, "above the optimum": ratio})
    return rows


def table_of_baselines(seeds: int = 3, devices: int = 20) -> list[dict[str, Any]]:
    """Return a row per latency weight: ratios to the optimum, fixed clocks, mean over seeds."""
    rows = []
    for weight in (0.5, 0.1, 0.9):
        found: dict[str, list[float]] = {}
        for seed in range(seeds):
            problem = cell(devices, seed, clocks=False, latency_weight=weight)
            best = optimal.solve(problem).objective
            draw = np.random.default_rng(seed)
            worse = max(
                bcd.solve(
                    problem,
                    start=Shares(
                        bandwidth=draw.dirichlet(np.ones(devices)) * problem.cell.bandwidth,
                        power=draw.uniform(0, 1, devices) * problem.network.max_power,
                        clock=problem.network.max_clock,
                    ),
                ).objective
                for _ in range(2)
            )
            values = {
                "equal": baselines.equal(problem).objective,
                "random (50)": float(np.mean([baselines.random(problem, i).objective for i in range(50)])),
                "equal + SCA power": baselines.equal_bandwidth(problem).objective,
                "BCD": bcd.solve(problem).objective,
                "BCD, worse of 2 starts": worse,
                "BCD + matching": bcd.solve_matching(problem, 4 * devices).objective,
                "BCD, 5 inner": bcd.solve(problem, inner=5).objective,
            }
            for name, value in values.items():
                found.setdefault(name, []).append(value / best)
        rows.append({"latency_weight": weight} | {name: float(np.mean(each)) for name, each in found.items()})
    return rows


def show(title: str, rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows with equal keys as a table, or each as a line of JSON."""
    if as_json:
        for row in rows:
            print(json.dumps({"table": title, **row}))
        return
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 100, 1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of tables")
    args = parser.parse_args()
    show("size", sizes(args.devices, args.repeats), as_json=args.json)
    show("solvers", solvers([5, 20, 50, 200], args.repeats), as_json=args.json)
    show("baselines", table_of_baselines(), as_json=args.json)


if __name__ == "__main__":
    main()
