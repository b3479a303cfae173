"""The plan of a simulated round in one cell: which devices can keep the limits, and what each is given. K devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sflam.allocate.cell.market import Market
from sflam.allocate.cell.online import Controller
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.spans import crowding
from sflam.allocate.cell.stages import stages_in
from sflam.allocate.limits import LONGEST, RANGES, Impossible
from sflam.allocate.registry import method_of
from sflam.cost.energy import computing_j, idle_j, sending_j
from sflam.cost.timing import Stages, in_order
from sflam.cost.traffic import whole_traffic
from sflam.errors import AllocationError
from sflam.network.channel import rate
from sflam.network.network import Floats, Network
from sflam.plan import Plan, Status
from sflam.planner.cell import best_cut, best_here, chooses_cut, problem_of
from sflam.planner.steps import answers_in_turn
from sflam.planner.way_down import down_rates
from sflam.simulate.clock import RoundCost, round_cost
from sflam.simulate.planner import Planner, Turn
from sflam.workload import Workload


class CellPlanner(Planner):
    """States problem A (2.1) of some devices, and has it solved."""

    def problem(
        self,
        network: Network,
        devices: Sequence[int],
        battery: Floats | None = None,
        *,
        workload: Workload | None = None,
        server: bool = True,
        cuts: Sequence[int] | None = None,
        batches: Floats | None = None,
    ) -> Problem:
        """Return the problem of ``devices`` in a network of all K.

        Args:
            network: of all.
            devices: of the problem.
            battery: [K] J that each has left.
            workload: another than the planner's.
            server: whether the server's turn is counted.
            cuts: [n] other than those in force.
            batches: [n] mini-batches other than those expected.
        """
        index = np.asarray(devices, np.int64)
        some, steps = network.only(devices), self.mini_batches(devices) if batches is None else batches
        traffic = self.draws.of(devices) if self.draws else None
        if self.once:
            traffic = whole_traffic(self.workload, len(index))
            some, steps = replace(some, flops_per_cycle=some.flops_per_cycle / steps), np.ones(len(index))
        made = self.unkept.of(devices) if self.unkept else None
        # published plans expect shares that are drawn, and are charged for them as they fall
        known = self.draws or batches is not None or self.job.sampling == "local"
        waited = self.waited.each(devices) if self.waited and known else None
        problem = problem_of(
            self.job,
            network=some,
            workload=workload or self.workload,
            cut=self.cuts(devices) if cuts is None else np.asarray(cuts, np.int64),
            steps=steps,
            server=server,
            averages=self.local_steps(devices),
            own=self.own(devices) if (workload or self.workload) is self.modelled else (),
            made=made,
            sent=made if self.job.learn.cache == "server" else None,
            traffic=traffic,
            lockstep=in_order(waited, one_by_one=answers_in_turn(self.job)) if waited else None,
        )
        chi = self.slowdown(devices)
        if chi is not None:
            floor = np.minimum(
                chi.floor, problem.widths[-1]
            )  # plan.bits_most is asked for, too, and is harder
            problem = problem.change(sensitivity=_countable(chi.chi), bits_floor=floor)
            if self.feedback and self.feedback.down:
                problem = problem.change(sensitivity_down=_countable(chi.down))
        if battery is None:
            return problem
        return problem.change(energy_cap=np.minimum(problem.energy_cap, battery[index]))

    def own(self, devices: Sequence[int], extra_adapter: int = 0) -> tuple[Workload, ...]:
        """Return the workloads of devices with LoRA ranks or tuned blocks of their own; empty where none has.

        Args:
            devices: whose.
            extra_adapter: bits of a body of adapters beside their values, as measured.
        """
        return (
            tuple(replace(self.ranked[d], extra_adapter=extra_adapter) for d in devices)
            if self.ranked
            else ()
        )

    def cost(
        self,
        network: Network,
        turn: Turn,
        up: Floats,
        down: Floats,
        workload: Workload | None = None,
        batches: Floats | None = None,
    ) -> RoundCost:
        """Return the cost of a turn; of whole models, only adapters travel."""
        problem = self.problem(network, turn.devices, workload=workload, batches=batches)
        if problem.waits:  # what of a round is in which stage hangs on its bits
            problem = _at_widths(problem, turn)
        down_rate = down_rates(self.job, problem.network)
        if problem.traffic is not None:
            handed, fetched = problem.adapter_bits_up, problem.adapter_bits_down
            if self.once:
                up, down = problem.payload / np.log(2), problem.down_bits
            return round_cost(
                problem,
                turn.plan,
                up=up,
                down=down,
                handed=handed,
                fetched=fetched,
                down_rate=down_rate,
                inside=True,
            )
        work = self.own(turn.devices, problem.workload.extra_adapter) or problem.workloads
        if self.once:
            up = down = np.array([float(each.up_bits(0)) for each in work])
        cuts = problem.each("cut")
        at = [(each, int(cut)) for each, cut in zip(work, cuts, strict=True)]
        handed = np.array([float(each.trained_bits(cut)) for each, cut in at])
        fetched = np.array([float(each.adapter_bits(cut)) for each, cut in at])
        return round_cost(
            problem, turn.plan, up=up, down=down, handed=handed, fetched=fetched, down_rate=down_rate
        )

    def expected(self, network: Network, turn: Turn) -> RoundCost:
        """Return the cost of a turn before it, by the sizes of what its mini-batches will send.

        Args:
            network: of all devices, in the round in which the plan is carried out.
            turn: whose.
        """
        local = self.job.sampling == "local"
        up, down = self.bodies(network, turn)
        return self.cost(network, turn, up, down, None, None if local else self.mini_batches(turn.devices))

    def stages(self, network: Network, turn: Turn) -> Stages:
        """Return which share of its work each device of a turn has before and behind the server's part of every step.

        Args:
            network: of all devices, in the round in which the plan is carried out.
            turn: whose.
        """
        assert self.draws is not None
        problem = _at_widths(self.problem(network, turn.devices), turn)
        return stages_in(problem, in_order(self.draws.each(turn.devices)))

    def bodies(self, network: Network, turn: Turn) -> tuple[Floats, Floats]:
        """Return the bits [n] of all bodies of the steps of a turn's devices, up and down, as drawn for the round.

        Args:
            network: of all devices.
            turn: whose.
        """
        problem = _at_widths(self.problem(network, turn.devices), turn)
        up = problem.payload / np.log(2) - problem.adapter_bits_up
        return np.rint(up), np.rint(problem.down_bits - problem.adapter_bits_down)

    def dearest(self, network: Network) -> Floats:
        """Return the J of each device's round at full power over the whole band and at full speed, [K]."""
        problem = self.problem(network, range(len(self.placements)))
        there = problem.network
        band = np.full(len(problem), there.bandwidth[0])
        ahead = rate(band, there.max_power, there.gain[0], there.noise)
        seconds = problem.payload / (ahead * np.log(2))
        joules = sending_j(there.max_power, seconds, there.amplifier_efficiency, there.circuit_power)
        joules = joules + computing_j(problem.cycles, there.max_clock, there.kappa) + problem.received_j
        fixed = problem.base_s + problem.each("local_steps") * problem.each("delay")
        own = fixed + problem.cycles / there.max_clock + seconds
        return joules + idle_j(there.static_power, own)

    def _ask(
        self, number: int, network: Network, devices: tuple[int, ...], battery: Floats | None
    ) -> tuple[Turn | None, tuple[int, ...]]:
        left, dropped = devices, list[int]()
        while left:
            plan = self._solved(network, left, battery)
            if len(plan.devices) and plan.status is not Status.INFEASIBLE:
                return self.turn(left, plan), tuple(sorted(dropped))
            if self.job.plan.late == "stop" and battery is None:
                raise AllocationError(
                    f"round {number + 1}: no plan holds the limits: {'; '.join(plan.advice)}; change them, or set "
                    'plan.late = "drop" to leave such devices out'
                )
            gone = self._worst(network, left, battery)
            dropped += gone
            left = tuple(device for device in left if device not in gone)
        return None, tuple(sorted(dropped))

    def _solved(self, network: Network, devices: Sequence[int], battery: Floats | None) -> Plan:
        wish = self.job.plan
        method = method_of(wish)
        if chooses_cut(self.job, method):
            return best_cut(self.job, self.problem(network, devices, battery, server=False), method)
        problem = self.problem(network, devices, battery)
        if not wish.budget:
            return best_here(self.job, problem, method)
        index = np.asarray(devices, np.int64)
        budgets = np.full(len(index), wish.budget)
        controller = Controller(problem, budgets, self.patience[index], self.queues[index])
        return controller.step(problem.network.gain[problem.server])

    def _worst(self, network: Network, devices: Sequence[int], battery: Floats | None) -> list[int]:
        """Return the devices that could not keep the limits alone; else the one that needs most of the band."""
        alone = {device: self._alone(network, device, battery) for device in devices}
        if poor := [device for device in devices if alone[device] is None]:
            return poor
        cuts = [cut for cut in alone.values() if cut is not None]
        together = self.problem(network, devices, battery, cuts=cuts)
        try:
            cell = together.cell
        except Impossible:  # each would do alone, but their turns at the server take too long
            return [devices[int(np.argmax(self.mini_batches(devices)))]]
        if cell.waits:
            needed = crowding(cell)
        elif np.isfinite(cell.deadline) or cell.circuits:
            needed = Market(cell).least_bandwidth(min(cell.deadline, LONGEST))
        else:
            needed = cell.noise
        return [devices[int(np.argmax(needed))]]

    def _alone(self, network: Network, device: int, battery: Floats | None) -> int | None:
        """Return the cut at which a device that has the cell to itself keeps the limits; None where it cannot."""
        if chooses_cut(self.job, method_of(self.job.plan)):
            found = self._solved(network, [device], battery).devices
            return found[0].cut if len(found) else None
        problem = self.problem(network, [device], battery)
        try:
            cell = problem.cell
            if (cell.waits or cell.circuits) and Market(cell).shortest() > cell.deadline:
                return None
        except Impossible:
            return None
        if np.isfinite(cell.deadline) and not (cell.waits or cell.circuits):
            least = float(Market(cell).least_bandwidth(cell.deadline)[0])
            if not 0 < least <= cell.bandwidth:
                return None
        return self.placements[device].cut


def _at_widths(problem: Problem, turn: Turn) -> Problem:
    """Return the problem of a turn's devices at the bits that its plan gives them."""
    up, down = (np.array(each) for each in zip(*(item.bits for item in turn.placements), strict=True))
    return problem.change(bits=up, bits_down=down)


def _countable(chi: Floats) -> Floats:
    """Return chi [n] as measured within what plans count: 0 where it is below that, as of a device with next to no
    rows in the average, or of gradients that agree more when they are quantized."""
    low, high, _ = RANGES["sensitivity"]
    return np.where(chi < low, 0.0, np.minimum(chi, high))
