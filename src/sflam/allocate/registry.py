"""The allocators by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sflam.allocate.cell import baselines, bcd, bcd_bits, bits, cuts, optimal, oracle, subchannels
from sflam.allocate.cell.limits import Impossible
from sflam.allocate.cell.problem import Problem
from sflam.allocate.settings import BY_SUBCHANNEL, PlanSettings
from sflam.errors import AllocationError, unknown
from sflam.network.network import Network
from sflam.plan import Plan
from sflam.registry import add
from sflam.workload import Workload

METHODS: dict[str, Callable[..., Plan]] = {
    "optimal": optimal.solve,  # bandwidth, power, clocks: the global optimum, certified
    "bits": bits.solve,  # and bits for every device, certified
    "cut": cuts.solve,  # and the cut
    "subchannels": subchannels.solve,  # bandwidth in equal subchannels; needs count=
    "bcd": bcd.solve,  # the paper's block coordinate descent
    "bcd-matching": bcd.solve_matching,  # the same over subchannels; needs count=
    "bcd-bits": bcd_bits.solve,  # the same with its quantization step
    "fixed-bits": baselines.fixed_bits,  # the best common width, optimal otherwise
    "equal": baselines.equal,  # equal bandwidth, full power, full speed
    "equal-bandwidth": baselines.equal_bandwidth,  # with the best powers and clocks
    "random": baselines.random,  # takes seed=
    "oracle": oracle.solve,  # a general convex solver, for checking; needs cvxpy
}


def allocate(problem: Problem, method: str = "optimal", **options: Any) -> Plan:
    """Return the plan that a method finds.

    Args:
        problem: what to plan.
        method: a name in ``METHODS``.
        options: of that method.

    Raises:
        AllocationError: an unknown method, or options it refuses.
    """
    if method not in METHODS:
        raise AllocationError(unknown("method", method, METHODS))
    try:
        return METHODS[method](problem, **options)
    except Impossible as impossible:  # an own method need not know of it
        return problem.no_plan(method, *impossible.advice)


def register(name: str, solve: Callable[..., Plan]) -> None:
    """Make an own allocator known as ``plan.method = name`` in this process.

    Args:
        name: small letters, digits and hyphens.
        solve: from a ``Problem`` to a plan, as ``problem.plan(name, Shares(...))`` makes it.

    Raises:
        ConfigError: the name is taken, or cannot be one.
    """
    add("allocator", name, solve, METHODS)


def state(
    network: Network,
    workload: Workload,
    settings: PlanSettings,
    *,
    cut: ArrayLike = 1,
    bits: ArrayLike = 8,
    bits_down: int = 8,
) -> Problem:
    """Return the problem that ``[plan]`` asks about.

    Args:
        network: devices and servers.
        workload: what fine-tuning costs at each cut.
        settings: what is weighed, decided and limited.
        cut: blocks on the device, where the cut is not chosen.
        bits: bits of an activation value, where bits are not chosen.
        bits_down: bits of a gradient value on the way back.

    Raises:
        AllocationError: numbers with which no network can be; see ``Problem``.
    """
    return Problem(
        network=network,
        workload=workload,
        cut=cut,
        bits=bits,
        bits_down=bits_down,
        latency_weight=settings.latency_weight,
        deadline=settings.deadline or np.inf,
        choose_clocks="clock" in settings.optimize,
        local_steps=settings.local_steps,
        radio_cap=settings.radio_cap or np.inf,
        compute_cap=settings.compute_cap or np.inf,
        energy_cap=settings.energy_cap or np.inf,
        sensitivity=settings.sensitivity,
        bit_choices=tuple(range(settings.bits_least, settings.bits_most + 1)),
    )


def method_of(settings: PlanSettings) -> str:
    """Return the method that decides all that is asked for: by subchannel, or with bits, where it is to."""
    method = settings.method
    if settings.subchannels:
        method = {"optimal": "subchannels", "bcd": "bcd-matching"}.get(method, method)
    if "bits" in settings.optimize:
        method = {"optimal": "bits", "bcd": "bcd-bits"}.get(method, method)
    return method


def plan(network: Network, workload: Workload, settings: PlanSettings) -> Plan:
    """Return the plan that ``[plan]`` asks for, from cut 1 and 8 bits where these are not chosen.

    Raises:
        AllocationError: numbers with which no network can be; see ``Problem``.
    """
    method = method_of(settings)
    options: dict[str, Any] = {"count": settings.subchannels} if method in BY_SUBCHANNEL else {}
    problem = state(network, workload, settings)
    if "cut" in settings.optimize:
        return cuts.solve(problem, solve_at=lambda at_cut: allocate(at_cut, method, **options))
    return allocate(problem, method, **options)
