"""``sflam plan`` for several servers: from a job to problem B, its plan, tables and a map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rich.console import RenderableType

from sflam.allocate.edge.problem import EdgeProblem, edge_problem
from sflam.allocate.edge.shares import Costs, EdgeShares, Loads
from sflam.allocate.referee import loads, score
from sflam.allocate.registry import EDGE_METHODS, allocate
from sflam.allocate.settings import METHODS, PlanSettings
from sflam.config import Job
from sflam.cost.reference import workloads_of
from sflam.errors import ConfigError
from sflam.network.network import Network
from sflam.network.scenario import build, reference_square
from sflam.plan import Plan
from sflam.planner.decision import Planned
from sflam.report.terminal.edge_table import costs_table, loads_table
from sflam.workload import Workload

UNUSED = (
    "deadline",
    "radio_cap",
    "compute_cap",
    "energy_cap",
    "subchannels",
    "sensitivity",
)
"""Settings of one cell that problem B has no place for."""
RIVALS = ("fractional", "hungarian", "nearest", "random", "card", "all-edge", "all-local", "equal")
FRACTIONAL_MOST = 60
"""Users up to which ``--compare`` runs the paper's method: ten seconds for 40, more than linear beyond."""


def wanted(job: Job) -> bool:
    """Return whether a job is about several servers: the reference square, two servers, or a method for them alone."""
    servers = max(job.network.servers, len(job.network.server))
    return (
        job.network.scenario == "refB" or servers > 1 or job.plan.method in set(EDGE_METHODS) - set(METHODS)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgePlanned(Planned):
    """What ``sflam plan`` found for several servers.

    Attributes:
        problem: what was planned.
    """

    problem: EdgeProblem

    @property
    def title(self) -> str:
        """What was planned, for people."""
        return f"{self.model}: {len(self.problem)} users, {self.problem.servers} servers"

    @property
    def several(self) -> bool:
        """Whether there are several servers to be at."""
        return True

    @property
    def costs(self) -> Costs:
        """The three parts of the plan's objective."""
        return score(self.problem, EdgeShares.told(self.plan.devices)).costs

    @property
    def loads(self) -> Loads:
        """What the plan asks of every server."""
        return loads(self.problem, self.plan.devices)

    @property
    def extras(self) -> tuple[RenderableType, ...]:
        """The parts of the cost and the servers' loads."""
        loads, network, costs = self.loads, self.problem.network, self.costs
        return (
            costs_table(costs.delay, costs.energy, costs.instability),
            loads_table(loads.users, loads.bandwidth, network.bandwidth, loads.clock, network.server_clock),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return one object for JSON: the plan with every user's layers, the parts of its cost, the servers' loads."""
        found = super().to_dict()
        for device in found["devices"]:
            device["layers"] = device["cut"]
        costs, loads = self.costs, self.loads
        found["costs"] = {"delay": costs.delay, "energy": costs.energy, "instability": costs.instability}
        found["servers"] = [
            {"users": int(users), "bandwidth": band, "clock": clock}
            for users, band, clock in zip(
                loads.users, loads.bandwidth.tolist(), loads.clock.tolist(), strict=True
            )
        ]
        return found

    def draw(self, folder: Path) -> list[str]:
        """Write the pictures into an existing folder; return their names."""
        from sflam.report.charts.edge_map import draw_map

        network = self.problem.network
        if network.positions is None or network.server_positions is None:
            return []
        places = network.positions, network.server_positions
        draw_map(self.plan, *places, folder / "map.png", layers=self.problem.layers, title=self.title)
        return ["map.png"]


def problem_of(
    job: Job,
    workload: Workload | None,
    round_number: int = 0,
    *,
    network: Network | None = None,
    steps: ArrayLike | None = None,
) -> EdgeProblem:
    """Return problem B as a job states it.

    The weights of seconds and joules are twice lam and twice 1 - lam: both 1 at lam = 0.5.

    Args:
        job: its ``[network]``, ``[plan]`` and ``[quant]``.
        workload: of every user; None in the reference square, whose users have their own.
        round_number: whose fading.
        network: who is there, instead of the job's users in that round; needs a workload.
        steps: [N] mini-batches of each user's round, instead of ``plan.local_steps``.

    Raises:
        AllocationError: numbers no problem can have.
    """
    wish, plain = job.plan, PlanSettings()
    assert all(getattr(wish, key) == getattr(plain, key) for key in UNUSED), "run.compatibility refuses these"
    if workload is None:
        edge = reference_square(job.network, job.seed, round_number)
        network, workloads, samples = edge.network, workloads_of(edge), edge.samples
    else:
        network = build(job.network, job.seed, round_number) if network is None else network
        workloads, samples = (workload,) * len(network), np.full(len(network), wish.samples)
    return edge_problem(
        network,
        workloads,
        samples,
        bits=job.quant.bits_up,
        steps=wish.local_steps if steps is None else steps,
        time_weight=2 * wish.latency_weight,
        energy_weight=2 * (1 - wish.latency_weight),
        stability_weight=wish.stability_weight,
        eigenvalue=wish.eigenvalue,
        least_split=wish.split_least,
        most_split=wish.split_most or None,
    )


def method_of(job: Job) -> str:
    """Return the name of the method a job asks for."""
    return "dual" if job.plan.method == "optimal" else job.plan.method


def decide(
    job: Job, workload: Workload | None, *, compare: bool = False, points: int = 0, round_number: int = 0
) -> EdgePlanned:
    """Return the plan a job asks for among several servers.

    Args:
        job: see ``problem_of``.
        workload: see ``problem_of``.
        compare: also plan with the other methods; ``fractional`` up to ``FRACTIONAL_MOST`` users.
        points: of a front; there is none here.
        round_number: whose fading.

    Raises:
        ConfigError, AllocationError: what no plan can be made for, and why.
    """
    if points:
        raise ConfigError("--pareto is for one server; leave it out, or vary --latency-weight")
    method = method_of(job)
    problem = problem_of(job, workload, round_number)
    names = [name for name in ("dual", *RIVALS) if name != method] if compare else []
    notes = []
    if "fractional" in names and len(problem) > FRACTIONAL_MOST:
        names.remove("fractional")
        notes.append(
            f"fractional is left out above {FRACTIONAL_MOST} users; ask for it with --method fractional"
        )
    if "all-local" in names and not np.isfinite(problem.local[:, problem.layers]).all():
        names.remove("all-local")
        notes.append("all-local is left out: a user may not train all layers")
    plan, *others = (plan_with(problem, name, job.seed) for name in (method, *names))
    model = f"transformer-{problem.layers}x768" if workload is None else workload.name
    return EdgePlanned(
        plan=plan,
        others=tuple(others),
        names=problem.network.names,
        model=model,
        notes=tuple(notes),
        problem=problem,
    )


def plan_with(problem: EdgeProblem, method: str, seed: int) -> Plan:
    """Return the plan of one method; ``seed`` is for those that draw."""
    return allocate(problem, method, **({"seed": seed} if method == "random" else {}))
