"""The plan of a relay: device after device has the whole band and the server to itself; a round is the sum of turns."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sflam.plan import DevicePlan, DevicePlans, Plan, Status

Alone = Callable[[int, int | None], Plan]
"""Returns the plan of one device, at a cut or at the job's."""


def in_turns(devices: int, alone: Alone, cuts: Sequence[int] = ()) -> Plan:
    """Return the plan of a round in which devices take turns.

    Args:
        devices: how many.
        alone: plans one.
        cuts: to choose from, one for all, as one half is handed on; empty for the job's.
    """
    began = clock.perf_counter()
    rounds = [[alone(device, cut) for device in range(devices)] for cut in (cuts or (None,))]
    joined = [_joined(plans) for plans in rounds]
    best = min(joined, key=lambda plan: (plan.status is Status.INFEASIBLE, plan.objective))
    return replace(best, solve_s=clock.perf_counter() - began)


def _joined(plans: Sequence[Plan]) -> Plan:
    """Return the plans of turns as one: seconds, joules, objectives and bounds add up."""
    kinds = {plan.status for plan in plans}
    whole = all(len(plan.devices) for plan in plans)
    columns = {
        name: np.concatenate([getattr(plan.devices, name) for plan in plans])
        for name in DevicePlan.__dataclass_fields__
    }
    order = (Status.INFEASIBLE, Status.FEASIBLE, Status.OPTIMAL)
    return Plan(
        method=plans[0].method,
        devices=DevicePlans(len(plans) if whole else 0, **(columns if whole else dict.fromkeys(columns, 0))),
        latency=sum(plan.latency for plan in plans),
        energy=sum(plan.energy for plan in plans),
        objective=sum(plan.objective for plan in plans),
        lower_bound=sum(plan.lower_bound for plan in plans),
        status=next(kind for kind in order if kind in kinds),
        advice=tuple(dict.fromkeys(sentence for plan in plans for sentence in plan.advice)),
        history=(sum(plan.objective for plan in plans),),
    )
