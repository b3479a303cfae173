"""What each device is given: the second of the two values that the data and the control path share."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

ALL_LOCAL = -1
"""``DevicePlan.server`` of a user that trains everything itself."""


class Status(enum.StrEnum):
    """How much a plan promises."""

    OPTIMAL = "optimal"  # the certified gap is within the solver's tolerance
    FEASIBLE = "feasible"  # all limits hold; see the gap for how far from the bound it may be
    INFEASIBLE = "infeasible"  # no plan can hold the limits; ``advice`` says by how much and what to change


@dataclass(frozen=True, kw_only=True)
class DevicePlan:
    """What one device is told, and what that is predicted to cost it in a round. SI units.

    Attributes:
        cut: blocks on the device.
        bits: bits of an activation value on the way up.
        bits_down: bits of a gradient value on the way down.
        bandwidth: Hz.
        power: transmit power, W.
        clock: Hz.
        server: index of its server; ``ALL_LOCAL`` for none.
        server_clock: clock share at its server, Hz; 0 where servers do not share clocks.
        subchannels: how many, or 0 where bandwidth is continuous.
        compute_s: seconds of computing on the device.
        transmit_s: seconds of transmitting up.
        compute_j: joules of computing on the device.
        transmit_j: joules of transmitting up.
    """

    cut: int
    bits: int
    bandwidth: float
    power: float
    clock: float
    compute_s: float
    transmit_s: float
    compute_j: float
    transmit_j: float
    bits_down: int = 0
    server: int = 0
    server_clock: float = 0.0
    subchannels: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A decision for every device, what it costs, and how far it can be from the best.

    Attributes:
        method: the allocator's name.
        devices: one per device, in order; empty when infeasible.
        latency: seconds of a round, T.
        energy: joules of a round, all devices, as the objective counts them unweighted.
        objective: what was minimised.
        lower_bound: no plan has a smaller objective; -inf where the method has none.
        status: what the plan promises.
        advice: sentences for the user: what is infeasible and by how much, what was rounded.
        history: the objective after each iteration; one value for direct methods.
        solve_s: seconds the solver took.
    """

    method: str
    devices: tuple[DevicePlan, ...]
    latency: float
    energy: float
    objective: float
    lower_bound: float
    status: Status
    advice: tuple[str, ...] = ()
    history: tuple[float, ...] = field(default=())
    solve_s: float = 0.0

    @property
    def gap(self) -> float:
        """Relative distance of the objective from its lower bound; inf without one."""
        if self.lower_bound <= 0 or self.objective != self.objective:
            return float("inf")
        return max(0.0, self.objective / self.lower_bound - 1.0)
