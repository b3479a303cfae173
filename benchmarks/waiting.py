"""What planning for devices that wait for each other is worth: ``python benchmarks/waiting.py [--json]``.

One trunk serves all devices of the reference cell, so that every step of a round waits for the slowest (1.14). A plan
made as if none waited (1.13) is charged for what runs, against the optimum of what runs; the last table is CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from common import introduce, machine, show

from sflam.allocate.cell import optimal
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import score
from sflam.cost.reference import ref_a_workload
from sflam.cost.timing import expected_steps
from sflam.network.reference import ref_a

WORK = ref_a_workload()


def cell(devices: int, seed: int, *, clocks: bool, unequal: bool) -> Problem:
    """Return the reference cell with four steps for every device, or one to eight."""
    draw = np.random.default_rng(seed)
    steps = draw.integers(1, 9, devices).astype(float) if unequal else np.full(devices, 4.0)
    return Problem(
        network=ref_a(devices, seed),
        workload=WORK,
        choose_clocks=clocks,
        local_steps=steps,
        lockstep=expected_steps(WORK, steps, devices),
    )


def worth(devices: int, seeds: int, *, clocks: bool, unequal: bool) -> dict[str, Any]:
    """Return what is left on the table by a plan of chains, and how much longer its rounds are than it promised."""
    left, longer, gaps = [], [], []
    for seed in range(seeds):
        problem = cell(devices, seed, clocks=clocks, unequal=unequal)
        best, chain = optimal.solve(problem), optimal.solve(problem.change(lockstep=None))
        given = chain.devices
        shares = Shares(bandwidth=given.bandwidth, power=given.power, clock=given.clock)
        charged = score(problem, shares)
        left.append(charged.objective / best.objective - 1)
        longer.append(charged.latency / chain.latency - 1)
        gaps.append(best.gap)
    return {
        "clocks": "chosen" if clocks else "fixed",
        "steps": "1 to 8" if unequal else "4",
        "left on the table": f"{100 * np.median(left):.1f} %, at most {100 * max(left):.1f} %",
        "longer than promised": f"{100 * np.median(longer):.1f} %",
        "gap": f"{max(gaps):.1e}",
    }


def seconds(devices: int) -> dict[str, Any]:
    """Return the CPU seconds of both plans."""
    problem, row = cell(devices, 0, clocks=True, unequal=True), {"devices": devices}
    for name, one in (("barrier", problem), ("chain", problem.change(lockstep=None))):
        began = time.process_time()
        plan = optimal.solve(one)
        row |= {f"{name}, s": round(time.process_time() - began, 3), f"{name}, gap": f"{plan.gap:.1e}"}
    return row


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print a JSON object per row")
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="*", default=[20, 100, 1000])
    chosen = parser.parse_args()
    introduce(machine(), as_json=chosen.json)
    rows = [
        worth(chosen.devices, chosen.seeds, clocks=clocks, unequal=unequal)
        for clocks in (True, False)
        for unequal in (False, True)
    ]
    show(rows, as_json=chosen.json, title="a plan of chains, charged as a barrier, against the optimum")
    show([seconds(count) for count in chosen.sizes], as_json=chosen.json, title="CPU seconds")


if __name__ == "__main__":
    main()
