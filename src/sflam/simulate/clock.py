"""What carrying out a plan takes, by the channel of the round and the bits that were really sent. K devices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from sflam.allocate.cell.problem import Problem
from sflam.cost.energy import computing_j, idle_j, receiving_j, sending_j
from sflam.network.channel import rate
from sflam.network.network import Floats
from sflam.plan import Plan
from sflam.planner.way_down import exchange_seconds


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundCost:
    """Seconds and joules of carrying out a plan; [K] each, except ``server_j``.

    Attributes:
        compute_s: s of computing on the device.
        up_s: s of sending activations.
        server_s: s of the server's turn.
        down_s: s of receiving gradients.
        adapters: s of moving adapters, once a round, before and after the steps.
        compute_j: J of computing on the device.
        transmit_j: J of sending activations.
        adapter_j: J of sending adapters.
        receive_j: J of receiving gradients and adapters.
        server_j: J of the server, all devices together; one number.
        counted: J that the plan's objective counts.
        idle_j: J that each device draws at any clock, beside computing, until all is done.
        inside: whether the plan counts adapters: a device's round ends when its own have moved, the fleet's with the
            last device, max(steps + adapters). Otherwise they move once all steps are done, beyond the plan:
            max(steps) + max(adapters).
        ends: s at which each device's last local step is done, where it waits for others on the way; else None.
        stages_s: s of all stages and the server's turns, where devices wait for each other, or until a round was closed
            that some left before its end; else None.
        fetch_s: of ``adapters``, s of receiving them before the steps.
        fetch_j: of ``receive_j``, J of that.
    """

    compute_s: Floats
    up_s: Floats
    server_s: Floats
    down_s: Floats
    adapters: Floats
    compute_j: Floats
    transmit_j: Floats
    adapter_j: Floats
    server_j: float
    counted: Floats
    receive_j: Floats | float = 0.0
    idle_j: Floats | float = 0.0
    inside: bool = False
    ends: Floats | None = None
    stages_s: float | None = None
    fetch_s: Floats | float = 0.0
    fetch_j: Floats | float = 0.0

    @property
    def finish(self) -> Floats:
        """When the last local step is done: its phases one after another, and what it waits between them."""
        if self.ends is not None:
            return self.ends
        total: Floats = self.server_s + self.down_s + self.compute_s + self.up_s
        return total

    @property
    def charged_j(self) -> float:
        """E as the plan predicts it, the server's included."""
        return float(self.counted.sum()) + self.server_j

    @property
    def seconds(self) -> float:
        """T as the plan predicts it: until the straggler's last step, or until its adapters have moved."""
        if self.stages_s is not None:
            return self.stages_s
        return float((self.finish + self.adapters * self.inside).max())

    @property
    def whole_s(self) -> float:
        """Until all is done, adapters too."""
        return self.seconds if self.inside else self.seconds + float(self.adapters.max())

    @property
    def radio_j(self) -> Floats:
        """What each radio took to send."""
        total: Floats = self.transmit_j + self.adapter_j
        return total

    @property
    def device_j(self) -> Floats:
        """What each battery paid."""
        total: Floats = self.compute_j + self.transmit_j + self.adapter_j + self.receive_j + self.idle_j
        return total


def round_cost(
    problem: Problem,
    plan: Plan,
    *,
    up: Floats,
    down: Floats,
    handed: Floats,
    fetched: Floats,
    down_rate: float | Floats = np.inf,
    inside: bool = False,
) -> RoundCost:
    """Return what a plan takes over the network of ``problem``: (1.11), (1.12), and the chain of (1.13), or the stages
    of (1.14) where its devices wait for each other.

    Args:
        problem: of the plan's devices, in the round in which it is carried out.
        plan: for the same devices.
        up: [K] bits that each device sent: codes and side information.
        down: [K] bits that it received.
        handed: [K] bits in which it sent what it trained.
        fetched: [K] bits of the adapters that it received.
        down_rate: bit/s down, one or [K], in a device's own slots; infinite where the way down is not counted.
        inside: whether the plan counts adapters.
    """
    network, given = problem.network, plan.devices
    ahead = rate(given.bandwidth, given.power, network.gain[problem.server], network.noise)
    # s of the device's own slots, which are as long as the airtime that it has is short
    compute, sending, handing = problem.cycles / given.clock, up / ahead, handed / ahead
    receiving, fetching = down / down_rate, fetched / down_rate
    waiting = problem.each("local_steps") * exchange_seconds(problem)
    compute_j = computing_j(problem.cycles, given.clock, network.kappa)
    send = partial(
        sending_j, given.power, efficiency=network.amplifier_efficiency, circuit=network.circuit_power
    )
    transmit_j, adapter_j = send(sending), send(handing)
    counted = transmit_j + adapter_j * inside + (compute_j if problem.choose_clocks else 0.0)
    server_s, down_s = np.full(len(problem), problem.base_s), receiving / given.airtime + waiting
    transmit = sending / given.airtime
    handed_s, fetched_s = handing / given.airtime, fetching / given.airtime
    moving = (handing + fetching) / given.airtime
    counted = counted + receiving_j(network.receive_power, receiving + fetching * inside)
    seconds, ends = float((server_s + down_s + compute + transmit + moving * inside).max()), None
    if problem.stages is not None and problem.waits:
        stages = problem.stages
        each = stages.seconds(
            compute=compute, up=transmit, down=down_s, fetch=fetched_s * inside, hand=handed_s * inside
        )
        seconds, ends = (
            float(problem.base_s + stages.total(each)),
            problem.base_s + stages.ends(each, handed_s * inside),
        )
    whole_s = seconds if inside else seconds + float(moving.max())
    return RoundCost(
        compute_s=compute,
        up_s=transmit,
        server_s=server_s,
        down_s=down_s,
        adapters=moving,
        compute_j=compute_j,
        transmit_j=transmit_j,
        adapter_j=adapter_j,
        receive_j=receiving_j(network.receive_power, receiving + fetching),
        server_j=problem.base_j,
        counted=counted + idle_j(network.static_power, seconds),
        idle_j=idle_j(network.static_power, whole_s),
        inside=inside,
        ends=ends,
        stages_s=None if ends is None else seconds,
        fetch_s=fetched_s,
        fetch_j=receiving_j(network.receive_power, fetching),
    )
