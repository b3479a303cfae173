"""The planner of simulated rounds, for one cell or several servers. K devices."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sflam.config import Job
from sflam.data.batches import rows_of_round as rows_of
from sflam.data.settings import POISSON
from sflam.learn.selection import chances_of
from sflam.learn.weighting import counted
from sflam.network.network import Floats, Network
from sflam.plan import Placement, Plan, overlay
from sflam.simulate.clock import RoundCost
from sflam.simulate.draws import Draws
from sflam.simulate.feedback import Feedback
from sflam.simulate.sensitivity import Slowdown
from sflam.workload import Workload

NO_ROWS = 1e-9
"""Rows that stand for none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """Devices that share the network at once, their plan, and where it puts them, all in the same order."""

    devices: tuple[int, ...]
    plan: Plan
    placements: tuple[Placement, ...]


class Unkept:
    """What the devices of a round must still make of its activations, where they or the server keep some.

    It is looked up before the round, and remembered when that has changed what is kept.

    Args:
        rows: returns the rows of each device's round, given who takes part.
        batch: rows of a mini-batch.
    """

    def __init__(self, rows: Callable[[Sequence[int]], Mapping[int, int]], batch: int) -> None:
        self._rows, self._batch = rows, batch
        self._known: dict[tuple[int, ...], Floats] = {}

    def of(self, devices: Sequence[int]) -> Floats:
        """Return mini-batches [n] of devices that take part together; above zero, as a problem wants work."""
        who = tuple(devices)
        if who not in self._known:
            rows = self._rows(who)
            self._known[who] = np.maximum([float(rows[d]) for d in who], NO_ROWS) / self._batch
        return self._known[who]


class Planner(ABC):
    """States the problem of the devices of a round, has it solved, and returns what a plan costs.

    Args:
        job: its ``[plan]``, ``[quant]`` and ``[network]``.
        workload: what a mini-batch costs.
        batches: [K] mini-batches of each device's round; a ragged one is a fraction.
        samples: [K] that each device holds.
        once: whether the payload travels once a round, as whole models do, and not with every mini-batch.
        feedback: measures chi on the way; None plans with ``plan.sensitivity``.
        ranked: [K] what a mini-batch costs each device, where LoRA ranks or tuned blocks differ; else empty.

    Attributes:
        several: whether plans give every device a server, or none.
        placements: [K] where the plans now in force have every device; at first, where the job has it.
        modelled: the workload as it was given; ``workload`` may be calibrated.
        unkept: what devices still have to make in the round at hand; None where all of it.
        draws: what the mini-batches of the round at hand hold; None where that is not known, or does not count.
        waited: the same where devices wait for each other at every step, whatever counts.
        queues: [K] J that each device has used beyond its budget.
        patience: [K] J beyond budget that a unit of the objective is worth.
        seconds: of the host, spent on planning so far.
    """

    several = False

    def __init__(
        self,
        job: Job,
        workload: Workload,
        batches: Floats,
        samples: NDArray[np.int64],
        *,
        once: bool = False,
        feedback: Feedback | None = None,
        ranked: tuple[Workload, ...] = (),
    ) -> None:
        self.job, self.feedback = job, feedback
        self.workload = self.modelled = workload
        self.ranked = ranked
        self.seconds = 0.0
        self.batches, self.samples, self.once = batches, samples, once
        self.placements = self._start = tuple(
            replace(placement, cut=workload.blocks) if placement.alone else placement
            for placement in job.placements
        )
        self.queues = np.zeros(len(self.placements))
        self.patience = np.full(len(self.placements), job.plan.patience or 1.0)
        self.unkept: Unkept | None = None
        self.draws: Draws | None = None
        self.waited: Draws | None = None

    @property
    def counts_all(self) -> bool:
        """Whether plans and charges are of all that crosses."""
        return self.job.plan.counts == "all"

    def ask(
        self, number: int, network: Network, devices: Sequence[int], battery: Floats | None = None
    ) -> tuple[Turn | None, tuple[int, ...]]:
        """Return the plan of those devices that can keep the limits, if any, and the others, which are dropped.

        Args:
            number: of the round.
            network: of all.
            devices: that are to take part.
            battery: [K] J that each has left.

        Raises:
            AllocationError: no plan holds the limits, and none may be dropped.
        """
        began = time.perf_counter()
        try:
            return self._ask(number, network, tuple(devices), battery)
        finally:
            self.seconds += time.perf_counter() - began

    def turn(self, devices: Sequence[int], plan: Plan) -> Turn:
        """Return the turn of devices with their plan; bits down and tuned blocks that it leaves open are the job's."""
        placed = plan.placements(devices, self.job.quant.bits_down)
        return Turn(
            devices=tuple(devices),
            plan=plan,
            placements=tuple(
                replace(item, tuned=item.tuned or self._start[item.device].tuned) for item in placed
            ),
        )

    def place(self, placements: Sequence[Placement]) -> None:
        """Put devices where a plan has them, and all others where they start."""
        self.placements = overlay(self._start, placements)

    def mini_batches(self, devices: Sequence[int]) -> Floats:
        """Return the mini-batches [n] of each device's round, as drawn or expected, where these ``devices`` take part.

        With ``data.sampling = "global"`` a device has its share by samples of every step of the fleet, by coins as many
        rows as in passes, in the mean.
        """
        index = np.asarray(devices, np.int64)
        if self.job.sampling == "local":
            return self.batches[index]
        if self.draws:
            drawn: Floats = np.maximum(self.draws.of(devices).rows, NO_ROWS) / self.job.learn.batch
            return drawn
        if self.job.sampling == POISSON:  # as many as in passes, in the mean
            return self.batches[index]
        learn, own = self.job.learn, self.samples[index]
        rows = rows_of(int(own.sum()), learn.batch * len(index), learn.local_steps, learn.local_epochs)
        expected: Floats = rows * own / own.sum() / learn.batch
        return expected

    def local_steps(self, devices: Sequence[int]) -> int:
        """Return the local steps of the fleet in a round where these ``devices`` take part."""
        learn, own = self.job.learn, self.samples[np.asarray(devices, np.int64)]
        if self.job.sampling == "global":
            passes = -(-int(own.sum()) // (learn.batch * len(own)))
        else:
            passes = -(-int(own.max()) // learn.batch)
        return learn.local_steps or learn.local_epochs * passes

    def cuts(self, devices: Sequence[int]) -> NDArray[np.int64]:
        """Return the blocks on each of ``devices``, [n]."""
        return np.array([self.placements[device].cut for device in devices], np.int64)

    def servers(self, devices: Sequence[int]) -> NDArray[np.int64]:
        """Return the server of each of ``devices``, or ``ALL_LOCAL``, [n]."""
        return np.array([self.placements[device].server for device in devices], np.int64)

    def spend(self, devices: Sequence[int], joules: Floats) -> None:
        """Count [n] J that devices used in a round towards their budgets (4.1)."""
        spent = np.zeros_like(self.queues)
        np.add.at(spent, np.asarray(devices, np.int64), joules)  # a round may be opened twice
        self.queues = np.maximum(self.queues + spent - self.job.plan.budget, 0.0)

    def slowdown(self, devices: Sequence[int]) -> Slowdown | None:
        """Return chi as measured for devices that share a round; None where nothing is measured."""
        if self.feedback is None:
            return None
        return self.feedback.slowdown(devices, self.counted(devices))

    def counted(self, devices: Sequence[int]) -> list[float]:
        """Return what each of ``devices`` counts in the average of their round, as it is expected."""
        job, held = self.job, dict(enumerate(self.samples.tolist()))
        trained = dict(zip(devices, self.mini_batches(devices).tolist(), strict=True))
        return counted(job.learn, job.sampling, trained, held, chances_of(job.fleet, held))

    @abstractmethod
    def cost(
        self,
        network: Network,
        turn: Turn,
        up: Floats,
        down: Floats,
        workload: Workload | None = None,
        batches: Floats | None = None,
    ) -> RoundCost:
        """Return the cost of a turn.

        Args:
            network: of all devices, in the round in which the plan is carried out.
            turn: whose.
            up: [n] bits that its devices sent.
            down: [n] bits that they received.
            workload: another than the planner's.
            batches: [n] mini-batches that they computed, where not what was expected.
        """

    @abstractmethod
    def dearest(self, network: Network) -> Floats:
        """Return the J of each device's round at full power over a whole band and at full speed, [K]."""

    @abstractmethod
    def _ask(
        self, number: int, network: Network, devices: tuple[int, ...], battery: Floats | None
    ) -> tuple[Turn | None, tuple[int, ...]]:
        """See :meth:`ask`."""
