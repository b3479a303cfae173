"""A fleet on a virtual clock: every round is planned over the network as it then is, carried out, and charged.

    for every round:
        1. the fading of the round is drawn, or read from the trace
        2. devices are chosen, the planner is asked, and devices that cannot keep the limits are dropped
        3. the devices train with exactly the plan's bits
        4. time and energy are charged for the bits really sent over this round's channel

Nothing here depends on how fast the host is. K devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sflam.charge import Charge
from sflam.config import Job
from sflam.history import RoundRecord
from sflam.learn.evaluate import Score
from sflam.learn.fleet import Average, Fleet, Steps
from sflam.learn.local import LocalFleet
from sflam.learn.methods import METHODS
from sflam.learn.relay import Relay
from sflam.learn.round import train
from sflam.model.adapters import State
from sflam.network.channel import rate
from sflam.network.network import Floats, Network
from sflam.network.scenario import build
from sflam.simulate.clock import Bill, bill
from sflam.simulate.keeping import kept_turn, turn_kept
from sflam.simulate.planner import Planner, Turn
from sflam.simulate.policies import POLICIES, Known


class Simulated:
    """The seam of :class:`sflam.learn.fleet.Fleet` around a fleet in this process.

    Args:
        inner: trains.
        planner: plans.
        job: what was asked for.
    """

    def __init__(self, inner: Fleet, planner: Planner, job: Job) -> None:
        self.inner, self.planner, self.job = inner, planner, job
        every = len(planner.cuts)
        self.clock = 0.0
        self.losses = np.full(every, np.inf)
        self.battery = np.full(every, job.network.battery_j) if job.network.battery_j else None
        self.turns: list[Turn] = []
        self.dropped: tuple[int, ...] = ()
        self.planned = -1
        self.charge: Charge | None = None

    def select(self, round: int) -> tuple[int, ...]:
        """Draw the channel, plan where that is due, tell the devices their bits; return those that take part."""
        self.network = build(self.job.network, self.job.seed, round)
        every = self.job.plan.every
        if self.planned < 0 or (every and round % every == 0):
            self._plan(round)
        if isinstance(self.inner, LocalFleet) and METHODS[self.job.learn.method].quantized:
            self.inner.assign(
                {
                    device: (int(told.bits), int(told.bits_down))
                    for turn in self.turns
                    for device, told in zip(turn.devices, turn.plan.devices, strict=True)
                }
            )
        return tuple(sorted(device for turn in self.turns for device in turn.devices))

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Start the devices from the global adapters; return the bytes sent."""
        return self.inner.download(round, devices, state)

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Run every local step of the devices' round."""
        return self.inner.local_steps(round, devices)

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the average of what the devices trained, and charge for the round."""
        average = self.inner.average(round, devices, steps)
        for device, loss in steps.device_losses.items():
            self.losses[device] = loss / steps.samples[device]
        self._charge(devices, steps)
        return average

    def state(self) -> dict[str, Any]:
        """Return what, beside the global adapters, must survive a crash between rounds."""
        return {
            "inner": self.inner.state(),
            "clock": self.clock,
            "losses": self.losses.tolist(),
            "queues": self.planner.queues.tolist(),
            "battery": None if self.battery is None else self.battery.tolist(),
            "turns": [kept_turn(turn) for turn in self.turns],
            "dropped": list(self.dropped),
            "planned": self.planned,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self.inner.restore(state["inner"])
        self.clock, self.planned = state["clock"], state["planned"]
        self.losses, self.planner.queues = np.array(state["losses"]), np.array(state["queues"])
        self.battery = None if state["battery"] is None else np.array(state["battery"])
        self.turns = [turn_kept(turn) for turn in state["turns"]]
        self.dropped = tuple(state["dropped"])

    def _plan(self, round: int) -> None:
        chosen = POLICIES[self.job.fleet.policy](self._known(round))
        # In a relay everyone has the cell to itself when its turn comes.
        groups = (
            [(one,) for one in self.inner.order(round, chosen)] if isinstance(self.inner, Relay) else [chosen]
        )
        asked = [self.planner.ask(round, self.network, group, self.battery) for group in groups]
        self.turns = [turn for turn, _ in asked]
        self.dropped = tuple(sorted(device for _, dropped in asked for device in dropped))
        self.planned = round

    def _known(self, round: int) -> Known:
        every = range(len(self.planner.cuts))
        joules = _dearest(self.planner, self.network, every) if self.battery is None else -self.battery
        return Known(
            settings=self.job.fleet,
            seed=self.job.seed,
            round=round,
            gain=self.network.gain[0],
            joules=joules,
            loss=self.losses,
            able=np.ones(len(every), bool) if self.battery is None else self.battery > 0,
        )

    def _charge(self, devices: Sequence[int], steps: Steps) -> None:
        once = self.planner.once
        down_rate = self.job.network.downlink_mbps * 1e6 or np.inf
        bills: list[tuple[Turn, Bill]] = []
        for turn in self.turns:
            problem = self.planner.problem(self.network, turn.devices)
            work, cuts = problem.workload, problem.each("cut")
            both = [
                np.array([float(book.get(device, 0)) for device in turn.devices])
                if not once
                else np.full(len(turn.devices), float(work.up_bits(32)))
                for book in (steps.payload_up, steps.payload_down)
            ]
            adapters = np.array([0.0 if once else float(work.adapter_bits(int(cut))) for cut in cuts])
            paid = bill(problem, turn.plan, up=both[0], down=both[1], adapters=adapters, down_rate=down_rate)
            bills.append((turn, paid))
        self._book(devices, steps, bills)

    def _book(self, devices: Sequence[int], steps: Steps, bills: Sequence[tuple[Turn, Bill]]) -> None:
        finish, own, told = {}, {}, {}
        began = 0.0
        for turn, paid in bills:
            for place, device in enumerate(turn.devices):
                finish[device] = began + float(paid.finish[place])
                own[device] = float(paid.device_j[place])
                told[device] = turn.plan.devices[place]
            began += paid.seconds + (float(paid.adapters.max()) if len(bills) > 1 else 0.0)
        handing = max(float(paid.adapters.max()) for _, paid in bills)
        seconds = began if len(bills) > 1 else began + handing
        self.clock += seconds
        spent = np.array([own[device] for device in devices])
        if self.battery is not None:
            self.battery[list(devices)] = np.maximum(self.battery[list(devices)] - spent, 0.0)
        if self.job.plan.budget:
            counted = np.concatenate([paid.counted for _, paid in bills])
            self.planner.spend([device for turn, _ in bills for device in turn.devices], counted)
        once = self.planner.once
        plans, every = [turn.plan for turn, _ in bills], [paid for _, paid in bills]
        self.charge = Charge(
            seconds=seconds,
            clock=self.clock,
            finish=tuple(finish[device] for device in devices),
            compute_j=float(sum(paid.compute_j.sum() for paid in every)),
            transmit_j=float(sum(paid.transmit_j.sum() for paid in every)),
            adapter_j=float(sum(paid.adapter_j.sum() for paid in every)),
            server_j=float(sum(paid.server_j for paid in every)),
            device_j=tuple(own[device] for device in devices),
            battery_j=() if self.battery is None else tuple(self.battery.tolist()),
            cuts=tuple(told[device].cut for device in devices),
            bits_up=tuple(0 if once else told[device].bits for device in devices),
            bits_down=tuple(0 if once else told[device].bits_down for device in devices),
            payload_up=tuple(steps.payload_up.get(device, 0) for device in devices),
            payload_down=tuple(steps.payload_down.get(device, 0) for device in devices),
            dropped=self.dropped,
            planned=self.planned,
            method=plans[0].method,
            predicted_s=float(sum(plan.latency for plan in plans)),
            charged_s=float(sum(paid.seconds for paid in every)),
            predicted_j=float(sum(plan.energy for plan in plans)),
            charged_j=float(sum(paid.charged_j for paid in every)),
            objective=float(sum(plan.objective for plan in plans)),
            gap=_gap(plans),
        )


def simulated_rounds(
    fleet: Simulated, state: State, evaluate: Callable[[State], Score], rounds: range, every: int = 1
) -> Iterator[tuple[RoundRecord, State]]:
    """Run the rounds as :func:`sflam.learn.round.train` does; every record carries its charge."""
    for record, trained in train(fleet, state, evaluate, rounds, every):
        yield replace(record, charge=fleet.charge), trained


def _gap(plans: Sequence[Any]) -> float | None:
    """Return the certified gap of the plans together; None without a bound."""
    bound = sum(plan.lower_bound for plan in plans)
    return max(0.0, float(sum(plan.objective for plan in plans) / bound - 1)) if 0 < bound < np.inf else None


def _dearest(planner: Planner, network: Network, devices: Sequence[int]) -> Floats:
    """Return the J of each device's round at full power over the whole band and at full speed."""
    problem = planner.problem(network, devices)
    there = problem.network
    ahead = rate(np.full(len(devices), there.bandwidth[0]), there.max_power, there.gain[0], there.noise)
    joules: Floats = there.max_power * problem.payload / (ahead * np.log(2))
    return joules + problem.cycles * (there.kappa * there.max_clock**2 + there.static_power / there.max_clock)
