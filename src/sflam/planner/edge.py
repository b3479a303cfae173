"""``sflam plan`` for several servers: from a job to problem B, its plan, tables and a map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sflam.allocate.edge.books import EdgeBooks, edge_books
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.statement import edge_problem
from sflam.allocate.registry import EDGE_METHODS, allocate
from sflam.allocate.settings import METHODS, PlanSettings
from sflam.config import Job, digest
from sflam.cost.energy import idle_j
from sflam.cost.reference import workloads_of
from sflam.cost.traffic import Traffic, expected_traffic
from sflam.errors import ConfigError
from sflam.network.network import Floats, Network
from sflam.network.scenario import build, reference_square
from sflam.plan import Plan
from sflam.planner.decision import Decision
from sflam.planner.leakage import LeakLevel, least_cut, levels
from sflam.planner.way_down import down_rates
from sflam.units import human_si
from sflam.workload import Workload

UNUSED = (
    "deadline",
    "radio_cap",
    "compute_cap",
    "energy_cap",
    "subchannels",
    "sensitivity",
    "sensitivity_down",
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


def problem_of(
    job: Job,
    workload: Workload | None,
    round_number: int = 0,
    *,
    network: Network | None = None,
    steps: ArrayLike | None = None,
    at_tuned: Sequence[Workload] = (),
    traffic: Traffic | None = None,
    whole_values: int | None = None,
) -> EdgeProblem:
    """Return problem B as a job states it.

    The weights of seconds and joules are twice lam and twice 1 - lam: both 1 at lam = 0.5.

    Args:
        job: its ``[network]``, ``[plan]`` and ``[quant]``.
        workload: of every user; None in the reference square, whose users have their own.
        round_number: whose fading.
        network: replaces the job's network of that round; needs a workload.
        steps: [N] mini-batches of each user's round, instead of ``plan.local_steps``.
        at_tuned: [Y] the workload with 1, 2, ... Y first layers tuned, where users may tune other numbers of them.
        traffic: what the mini-batches of a round hold; None expects ``steps`` of mean length.
        whole_values: numbers that a user trains that keeps all layers; None: those of the adapters of all layers.

    Raises:
        AllocationError: numbers no problem can have.
    """
    wish, plain = job.plan, PlanSettings()
    assert all(getattr(wish, key) == getattr(plain, key) for key in UNUSED), "run.compatibility refuses these"
    if workload is None:
        edge = reference_square(job.network, job.seed, round_number)
        network, workloads, samples = edge.network, workloads_of(edge), edge.samples
        each = [
            workloads_of(edge, tuned=tau) for tau in range(1, workloads[0].blocks + 1) if chooses_tuned(job)
        ]
    else:
        network = build(job.network, job.seed, round_number) if network is None else network
        workloads, samples = (workload,) * len(network), np.full(len(network), wish.samples)
        each = [(own,) * len(network) for own in at_tuned]
    blocks = workloads[0].blocks
    if each and wish.tuned_least > blocks:
        raise ConfigError(
            f"plan.tuned_least is {wish.tuned_least}, but the model has {blocks} layers; lower it"
        )
    count = np.broadcast_to(np.asarray(wish.local_steps if steps is None else steps, float), (len(network),))
    extras: dict[str, Any] = {}
    if counts_all(job):
        holds = traffic or expected_traffic(workloads[0], count, len(network))
        more = 0 if whole_values is None else whole_values - workloads[0].adapter_values[-1]
        state = partial(_books, job, network, holds, count, more)
        extras = {"books": state(workloads), "books_at": tuple(map(state, each)), "traffic": holds}
    return edge_problem(
        network,
        workloads,
        samples,
        **extras,
        bits=job.quant.bits_up,
        steps=count,
        time_weight=2 * wish.latency_weight,
        energy_weight=2 * (1 - wish.latency_weight),
        stability_weight=wish.stability_weight,
        eigenvalue=wish.eigenvalue,
        least_split=max(wish.split_least, least_cut(job)),
        most_split=wish.split_most or None,
        tuned=None if each or not job.model.tuned else np.full(len(network), abs(job.model.tuned)),
        fit=wish.fit,
        fit_weight=wish.fit_weight,
        at_tuned=each,
        least_tuned=wish.tuned_least,
    )


def _books(
    job: Job, network: Network, holds: Traffic, steps: Floats, more: int, workloads: Sequence[Workload]
) -> EdgeBooks:
    """Return the books of users; ``more`` numbers are trained beside adapters by who keeps all layers."""
    return edge_books(
        workloads,
        holds,
        steps,
        bits_down=job.quant.bits_down,
        down_rate=down_rates(job, network),
        whole_values=more + workloads[0].adapter_values[-1],
        backhaul=job.network.backhaul_mbps * 1e6 or np.inf,
    )


def counts_all(job: Job) -> bool:
    """Return whether all that crosses counts; in the reference square only what is published does."""
    return job.plan.counts == "all" and job.network.scenario != "refB"


def chooses_tuned(job: Job) -> bool:
    """Return whether plans choose how many first layers users tune."""
    return "tuned" in job.plan.optimize


def method_of(job: Job) -> str:
    """Return the name of a job's method."""
    return "dual" if job.plan.method == "optimal" else job.plan.method


def decide(
    job: Job,
    workload: Workload | None,
    *,
    compare: bool = False,
    points: int = 0,
    round_number: int = 0,
    at_tuned: Sequence[Workload] = (),
) -> Decision:
    """Return a job's plan among several servers.

    Args:
        job: see ``problem_of``.
        workload: see ``problem_of``.
        compare: also plan with the other methods; ``fractional`` up to ``FRACTIONAL_MOST`` users.
        points: of a front; there is none here.
        round_number: whose fading.
        at_tuned: see ``problem_of``.

    Raises:
        ConfigError, AllocationError: what no plan can be made for, and why.
    """
    if points:
        raise ConfigError("--pareto is for one server; leave it out, or vary --latency-weight")
    method = method_of(job)
    problem = problem_of(job, workload, round_number, at_tuned=at_tuned)
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
    if problem.choices is not None and len(plan.devices):
        problem = problem.at(plan.devices.tuned)
    seconds = plan.latency - plan.devices.compute_s if len(plan.devices) else np.zeros(len(problem))
    if (waits := float(idle_j(problem.network.static_power, seconds).sum())) > 0:
        notes.append(
            f"static power is planned while devices compute; waiting draws {human_si(waits, 'J')} a round besides, "
            "which simulated runs charge with network.idle_always"
        )
    trade = tuple(
        LeakLevel(
            leak, cut, plan_with(problem_of(own, workload, round_number, at_tuned=at_tuned), method, job.seed)
        )
        for leak, cut, own in levels(job)
    )
    model = f"transformer-{problem.layers}x768" if workload is None else workload.name
    return Decision(
        plan=plan,
        others=tuple(others),
        names=problem.network.names,
        model=model,
        notes=tuple(notes),
        edge=problem,
        leakage=trade,
        job=digest(job),
    )


def plan_with(problem: EdgeProblem, method: str, seed: int) -> Plan:
    """Return the plan of one method; ``seed`` is for methods that draw."""
    return allocate(problem, method, **({"seed": seed} if method == "random" else {}))
