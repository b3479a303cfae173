"""From the updates of a version to the charge that its record keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sflam.learn.staleness import weight_of
from sflam.learn.steps import Steps
from sflam.plan import WHOLE
from sflam.records.buffer import Buffer
from sflam.records.charge import Charge
from sflam.simulate.arrivals import PaidCycle, Spent
from sflam.simulate.planner import Turn


@dataclass(frozen=True, kw_only=True)
class Come:
    """What came until a version was made.

    Attributes:
        version: that the updates move, from 0.
        began: s on the clock of the run at which it was made.
        now: s at which the next is made.
        cycles: of the updates in it, in the order in which they came.
        refused: of those that were thrown away.
        groups: of frames, their devices, that a trunk which serves all took until then.
    """

    version: int = 0
    began: float = 0.0
    now: float = 0.0
    cycles: tuple[PaidCycle, ...] = ()
    refused: tuple[PaidCycle, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()

    def staleness(self, cycle: PaidCycle) -> int:
        """Return how many versions there were since the one that a cycle began with."""
        return self.version - cycle.version


def charged_buffer(turn: Turn, come: Come, cycles: Sequence[PaidCycle], parts: Spent, steps: Steps) -> Charge:
    """Return the charge of a version.

    Args:
        turn: the plan of all devices.
        come: what came.
        cycles: all that spent something since the version before.
        parts: what each of them spent since then.
        steps: of the updates.
    """
    devices = sorted({cycle.device for cycle in come.cycles})
    joules = {device: 0.0 for device in turn.devices}
    for cycle, own in zip(cycles, parts.device_j.tolist(), strict=True):
        joules[cycle.device] += own
    placed = {item.device: item for item in turn.placements}
    seconds = come.now - come.began

    def each(name: str) -> tuple[float, ...]:
        return tuple(
            sum(cycle.cost[name] for cycle in come.cycles if cycle.device == device) for device in devices
        )

    def given(name: str) -> tuple[float, ...]:
        return tuple(float(getattr(placed[device], name)) for device in devices)

    energy = float(parts.device_j.sum() + parts.server_j.sum())
    plan = turn.plan
    gap = plan.objective / plan.lower_bound - 1 if 0 < plan.lower_bound < float("inf") else None
    last = {cycle.device: cycle for cycle in come.cycles}
    return Charge(
        seconds=seconds,
        clock=come.now,
        finish=tuple(last[device].steps_s for device in devices),
        compute_j=float(parts.compute_j.sum()),
        transmit_j=float(parts.transmit_j.sum()),
        adapter_j=float(parts.adapter_j.sum()),
        server_j=float(parts.server_j.sum()),
        device_j=tuple(joules[device] for device in devices),
        battery_j=(),
        cuts=tuple(placed[device].cut for device in devices),
        bits_up=tuple(placed[device].bits[0] for device in devices),
        bits_down=tuple(placed[device].bits[1] for device in devices),
        payload_up=tuple(steps.payload_up.get(device, 0) for device in devices),
        payload_down=tuple(steps.payload_down.get(device, 0) for device in devices),
        dropped=(),
        planned=0,
        method=plan.method,
        predicted_s=plan.latency,
        charged_s=seconds,
        predicted_j=plan.energy,
        charged_j=energy,
        objective=plan.objective,
        gap=None if gap is None else max(0.0, gap),
        begin=(0.0,) * len(devices),
        compute_s=each("compute_s"),
        up_s=each("up_s"),
        server_s=each("server_s"),
        down_s=each("down_s"),
        adapter_s=each("adapters"),
        bandwidth=given("bandwidth"),
        power=given("power"),
        speed=given("clock"),
        airtime=given("airtime") if min(given("airtime")) < WHOLE else (),
        idle_j=float(parts.idle_j.sum()),
        receive_j=float(parts.receive_j.sum()),
        buffer=Buffer(
            devices=tuple(cycle.device for cycle in come.cycles),
            staleness=tuple(come.staleness(cycle) for cycle in come.cycles),
            weights=tuple(weight_of(come.staleness(cycle)) for cycle in come.cycles),
            begun=tuple(cycle.begun for cycle in come.cycles),
            arrived=tuple(cycle.ends for cycle in come.cycles),
            refused=tuple(cycle.device for cycle in come.refused),
            refused_staleness=tuple(come.staleness(cycle) for cycle in come.refused),
            numbers=tuple(cycle.number for cycle in come.cycles),
            refused_numbers=tuple(cycle.number for cycle in come.refused),
            groups=come.groups,
        ),
    )
