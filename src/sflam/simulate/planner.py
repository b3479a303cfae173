"""The plan of a simulated round: which devices can keep the limits, and what each is given. K devices."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.limits import Impossible
from sflam.allocate.methods import allocate, method_of
from sflam.allocate.online import Controller
from sflam.allocate.optimal import Market
from sflam.allocate.problem import Problem
from sflam.calibrate.sensitivity import Slowdown
from sflam.config import Job
from sflam.errors import AllocationError
from sflam.network.network import Floats, Network
from sflam.plan import Plan, Status
from sflam.planning import options_of, problem_of
from sflam.simulate.feedback import Feedback
from sflam.workload import Workload


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """Devices that share the cell at once, and their plan, in the same order."""

    devices: tuple[int, ...]
    plan: Plan


class Planner:
    """States the problem of some devices in some round, and has it solved.

    Args:
        job: its ``[plan]``, ``[quant]`` and ``[network]``.
        workload: what a mini-batch costs.
        cuts: [K] blocks on each device.
        batches: [K] mini-batches of each device's round; a ragged one is a fraction.
        once: whether the payload travels once a round, as whole models do, and not with every mini-batch.
        feedback: measures chi on the way; None plans with ``plan.sensitivity``.

    Attributes:
        modelled: the workload as it was given; ``workload`` may be calibrated.
        queues: [K] J that each device has used beyond its budget.
        patience: what a second is worth in joules beyond budgets, J/s.
        seconds: of the host, spent on planning so far.
    """

    def __init__(
        self,
        job: Job,
        workload: Workload,
        cuts: NDArray[np.int64],
        batches: Floats,
        *,
        once: bool = False,
        feedback: Feedback | None = None,
    ) -> None:
        self.job, self.feedback = job, feedback
        self.workload = self.modelled = workload
        self.patience = job.plan.patience
        self.seconds = 0.0
        self.cuts, self.batches, self.once = cuts, batches, once
        self.queues = np.zeros(len(cuts))

    def problem(
        self,
        network: Network,
        devices: Sequence[int],
        battery: Floats | None = None,
        *,
        workload: Workload | None = None,
    ) -> Problem:
        """Return the problem of ``devices`` in a network of all K.

        Args:
            network: of all.
            devices: of the problem.
            battery: [K] J that each has left.
            workload: another than the planner's.
        """
        index = np.asarray(devices, np.int64)
        some, steps = network.only(devices), self.batches[index]
        if self.once:
            some, steps = replace(some, flops_per_cycle=some.flops_per_cycle / steps), np.ones(len(index))
        problem = problem_of(
            self.job,
            network=some,
            workload=workload or self.workload,
            cut=self.cuts[index],
            steps=steps,
            server=True,
        )
        chi = self.slowdown(devices)
        if chi is not None:
            problem = problem.change(sensitivity=np.maximum(chi.chi, 0.0))
        if battery is None:
            return problem
        return problem.change(energy_cap=np.minimum(problem.energy_cap, battery[index]))

    def slowdown(self, devices: Sequence[int]) -> Slowdown | None:
        """Return chi as measured for devices that share a round; None where nothing is measured."""
        if self.feedback is None:
            return None
        return self.feedback.slowdown(devices, self.batches[np.asarray(devices, np.int64)])

    def ask(
        self, number: int, network: Network, devices: Sequence[int], battery: Floats | None = None
    ) -> tuple[Turn | None, tuple[int, ...]]:
        """Return the plan of those devices that can keep the limits, if any, and the others, which are dropped.

        Raises:
            AllocationError: no plan holds the limits, and none may be dropped.
        """
        began = time.perf_counter()
        try:
            return self._ask(number, network, tuple(devices), battery)
        finally:
            self.seconds += time.perf_counter() - began

    def _ask(
        self, number: int, network: Network, left: tuple[int, ...], battery: Floats | None
    ) -> tuple[Turn | None, tuple[int, ...]]:
        dropped: list[int] = []
        while left:
            problem = self.problem(network, left, battery)
            plan = self._solved(problem, left)
            if len(plan.devices) and plan.status is not Status.INFEASIBLE:
                return Turn(devices=left, plan=plan), tuple(sorted(dropped))
            if self.job.plan.late == "stop" and battery is None:
                raise AllocationError(
                    f"round {number + 1}: no plan holds the limits: {'; '.join(plan.advice)}; change them, or set "
                    'plan.late = "drop" to leave such devices out'
                )
            gone = self._worst(network, left, battery)
            dropped += gone
            left = tuple(device for device in left if device not in gone)
        return None, tuple(sorted(dropped))

    def spend(self, devices: Sequence[int], joules: Floats) -> None:
        """Count [n] J that devices used in a round towards their budgets (4.1)."""
        spent = np.zeros_like(self.queues)
        spent[np.asarray(devices, np.int64)] = joules
        self.queues = np.maximum(self.queues + spent - self.job.plan.budget, 0.0)

    def _solved(self, problem: Problem, devices: Sequence[int]) -> Plan:
        wish = self.job.plan
        if not wish.budget:
            method = method_of(wish)
            return allocate(problem, method, **options_of(self.job, method))
        queues = self.queues[np.asarray(devices, np.int64)]
        controller = Controller(problem, np.full(len(devices), wish.budget), self.patience, queues)
        return controller.step(problem.network.gain[problem.server])

    def _worst(self, network: Network, devices: Sequence[int], battery: Floats | None) -> list[int]:
        """Return the devices that could not keep the limits alone; else the one that needs most of the band."""
        poor = [one for one in devices if not self._alone(network, one, battery)]
        if poor:
            return poor
        cell = self.problem(network, devices, battery).cell
        needed = Market(cell).least_bandwidth(cell.deadline) if np.isfinite(cell.deadline) else cell.noise
        return [devices[int(np.argmax(needed))]]

    def _alone(self, network: Network, device: int, battery: Floats | None) -> bool:
        problem = self.problem(network, [device], battery)
        try:
            cell = problem.cell
        except Impossible:
            return False
        if not np.isfinite(cell.deadline):
            return True
        least = float(Market(cell).least_bandwidth(cell.deadline)[0])
        return 0 < least <= cell.bandwidth
