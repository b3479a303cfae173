"""Quality and time of plans for several servers: ``python benchmarks/edge.py [--json]``.

Two tables over the reference square (servers of 1024 FLOP per cycle, 12 layers, seed 0):

    methods  dual's objective, certified gap and CPU seconds; every other method's objective over dual's
    small    4 users, 2 servers, 6 layers, servers of 512 and 4096 FLOP per cycle, six seeds: each method's objective
             over the best of all choices, the worst of the twelve cases

CPU seconds of one thread. ``fractional`` runs up to ``--fractional`` users: it takes ten seconds for 40.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from sflam.allocate.edge import baselines as edge_baselines
from sflam.allocate.edge import dual as edge_dual
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.statement import edge_problem
from sflam.allocate.referee import score
from sflam.allocate.registry import allocate
from sflam.cost.reference import workloads_of
from sflam.network.reference import ref_b

SIZES = ((20, 4), (40, 5), (100, 10), (200, 10))
RIVALS = ("hungarian", "nearest", "random", "card", "all-edge", "all-local", "equal")


def square(users: int, servers: int, seed: int = 0, rate: float = 1024.0, layers: int = 12) -> EdgeProblem:
    """Return the reference square as a problem."""
    edge = ref_b(users, servers, seed, rate)
    return edge_problem(edge.network, workloads_of(edge, layers), edge.samples)


def methods(sizes: Sequence[tuple[int, int]], most_fractional: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row per size."""
    rows = []
    for users, servers in sizes:
        problem = square(users, servers)
        began = time.process_time()
        plan = edge_dual.solve(problem, rounds=rounds)
        row: dict[str, Any] = {
            "users/servers": f"{users}/{servers}",
            "dual": plan.objective,
            "gap": plan.gap,
            "cpu_s": time.process_time() - began,
        }
        names = ("fractional", *RIVALS) if users <= most_fractional else RIVALS
        row |= dict.fromkeys(("fractional", "fractional_s"), float("nan"))
        for name in names:
            began = time.process_time()
            row[name] = allocate(problem, name).objective / plan.objective
            if name == "fractional":
                row["fractional_s"] = time.process_time() - began
        told = plan.devices
        shared = edge_baselines.equal_shares(problem, told.server, told.cut)
        rows.append(row | {"equal shares, dual's choice": score(problem, shared).objective / plan.objective})
    return rows


def small_cases() -> list[dict[str, Any]]:
    """Return a row per method: how often it equals the best of all choices, and its worst ratio."""
    found: dict[str, list[float]] = {}
    for rate in (512.0, 4096.0):
        for seed in range(6):
            problem = square(4, 2, seed, rate, layers=6)
            best = allocate(problem, "exhaustive").objective
            for name in ("dual", "fractional", *RIVALS):
                found.setdefault(name, []).append(allocate(problem, name).objective / best - 1)
    return [
        {
            "method": name,
            "equal to the best": f"{np.sum(np.array(each) < 1e-9)}/12",
            "worst above it": max(each),
        }
        for name, each in found.items()
    ]


def show(title: str, rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows with equal keys as a table, or each as a line of JSON."""
    if as_json:
        for row in rows:
            print(json.dumps({"table": title, **row}))
        return
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.6g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=200).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=200, help="sizes up to this many")
    parser.add_argument("--fractional", type=int, default=40, help="users up to which fractional runs")
    parser.add_argument("--rounds", type=int, default=edge_dual.ROUNDS, help="supergradient steps of dual")
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of tables")
    args = parser.parse_args()
    sizes = [size for size in SIZES if size[0] <= args.users]
    show("methods", methods(sizes, args.fractional, args.rounds), as_json=args.json)
    show("small", small_cases(), as_json=args.json)


if __name__ == "__main__":
    main()
