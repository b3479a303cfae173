"""From the costs of a round's plans to the charge that its record keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sflam.allocate.settings import PlanSettings
from sflam.cost.energy import idle_j
from sflam.learn.steps import Steps
from sflam.network.network import Floats
from sflam.plan import WHOLE, Placement, Plan
from sflam.records.charge import Calibration, Charge
from sflam.simulate.clock import RoundCost
from sflam.simulate.excess import beyond_j, late_s
from sflam.simulate.planner import Turn


def charged(
    paid: Sequence[tuple[Turn, RoundCost]],
    devices: Sequence[int],
    steps: Steps,
    *,
    began: float,
    wish: PlanSettings,
    battery: Floats | None,
    dropped: tuple[int, ...],
    planned: int,
    cut: bool,
    several: bool = False,
    slowdowns: tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...]] = ((), (), ()),
    slowdowns_down: tuple[float, ...] = (),
    calibration: Calibration | None = None,
    beyond_plans: float = 0.0,
    variable: bool = False,
) -> Charge:
    """Return the charge of a round.

    Args:
        paid: turns and their costs, one after another; a turn ends when its adapters have moved.
        devices: that took part, in the order of the record.
        steps: what was really sent.
        began: s on the virtual clock when the round began.
        wish: the limits of the plans.
        battery: [K] J that is left after the round, or None.
        dropped: devices left out.
        planned: the round of the plans.
        cut: whether activations cross a cut, and so have bits.
        several: whether there are several servers.
        slowdowns: chi of each device, the error of each, and the fewest bits of each.
        slowdowns_down: chi of each device's way down.
        calibration: measured beside modelled numbers, or None.
        beyond_plans: J that static power drew besides; see :func:`rest_j`.
        variable: whether codes are of variable size, so that the bodies of every device are kept.
    """
    begin: dict[int, float] = {}
    place: dict[int, tuple[RoundCost, int]] = {}
    placed: dict[int, Placement] = {}
    seconds = 0.0
    for turn, cost in paid:
        for index, device in enumerate(turn.devices):
            begin[device], place[device] = seconds, (cost, index)
            placed[device] = turn.placements[index]
        seconds += cost.whole_s

    def each(name: str) -> tuple[float, ...]:
        return tuple(
            float(getattr(cost, name)[index]) for cost, index in (place[device] for device in devices)
        )

    crossing = [placed[d].bits if cut and not placed[d].alone else (0, 0) for d in devices]
    starts = tuple(begin[device] for device in devices)
    shares = tuple(placed[device].airtime for device in devices)
    broken = {id(cost): beyond_j(wish, cost) for _, cost in paid}
    beyond = tuple(float(broken[id(cost)][index]) for cost, index in (place[device] for device in devices))
    plans, costs = [turn.plan for turn, _ in paid], [cost for _, cost in paid]
    return Charge(
        seconds=seconds,
        clock=began + seconds,
        finish=tuple(start + end for start, end in zip(starts, each("finish"), strict=True)),
        compute_j=float(sum(cost.compute_j.sum() for cost in costs)),
        transmit_j=float(sum(cost.transmit_j.sum() for cost in costs)),
        adapter_j=float(sum(cost.adapter_j.sum() for cost in costs)),
        server_j=float(sum(cost.server_j for cost in costs)),
        device_j=each("device_j"),
        battery_j=() if battery is None else tuple(battery.tolist()),
        cuts=tuple(placed[device].cut for device in devices),
        bits_up=tuple(bits[0] for bits in crossing),
        bits_down=tuple(bits[1] for bits in crossing),
        payload_up=tuple(steps.payload_up.get(device, 0) for device in devices),
        payload_down=tuple(steps.payload_down.get(device, 0) for device in devices),
        dropped=dropped,
        planned=planned,
        method=plans[0].method,
        predicted_s=float(sum(plan.latency for plan in plans)),
        charged_s=float(sum(cost.seconds for cost in costs)),
        predicted_j=float(sum(plan.energy for plan in plans)),
        charged_j=float(sum(cost.charged_j for cost in costs)),
        objective=float(sum(plan.objective for plan in plans)),
        gap=_gap(plans),
        begin=starts,
        compute_s=each("compute_s"),
        up_s=each("up_s"),
        server_s=each("server_s"),
        down_s=each("down_s"),
        adapter_s=each("adapters"),
        bandwidth=tuple(placed[device].bandwidth for device in devices),
        power=tuple(placed[device].power for device in devices),
        speed=tuple(placed[device].clock for device in devices),
        sensitivity=slowdowns[0],
        sensitivity_error=slowdowns[1],
        bits_floor=slowdowns[2],
        sensitivity_down=slowdowns_down,
        servers=tuple(placed[device].server for device in devices) if several else (),
        airtime=shares if any(share < WHOLE for share in shares) else (),
        tuned=tuned if any(tuned := tuple(placed[device].tuned for device in devices)) else (),
        calibration=calibration,
        idle_j=float(sum(np.sum(cost.idle_j) for cost in costs)),
        receive_j=float(sum(np.sum(cost.receive_j) for cost in costs)),
        rest_j=beyond_plans,
        late_s=late_s(wish, costs),
        beyond_j=beyond if any(beyond) else (),
        sent=tuple(steps.sent.get(device, 0) for device in devices) if variable else (),
        received=tuple(steps.received.get(device, 0) for device in devices) if variable else (),
    )


def rest_j(paid: Sequence[tuple[Turn, RoundCost]], static_power: Floats, *, several: bool) -> Floats:
    """Return the J, [K], that static power draws over a whole round beyond what plans count of it.

    Args:
        paid: turns and their costs, one after another.
        static_power: [K] W.
        several: whether there are several servers, where plans count it while devices compute.
    """
    joules = idle_j(static_power, float(sum(cost.whole_s for _, cost in paid)))
    for turn, cost in paid:
        own = list(turn.devices)
        joules[own] -= idle_j(static_power[own], cost.compute_s) if several else cost.idle_j
    return np.maximum(joules, 0.0)


def _gap(plans: Sequence[Plan]) -> float | None:
    """Return the certified gap of the plans together; None without a bound."""
    bound = sum(plan.lower_bound for plan in plans)
    if not 0 < bound < np.inf:
        return None
    return max(0.0, float(sum(plan.objective for plan in plans) / bound - 1))
