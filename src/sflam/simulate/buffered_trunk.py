"""Buffered rounds with one trunk for all: devices keep their pace, and it learns from the frames that are there.

1. as in :mod:`sflam.simulate.buffered`, but a device's steps wait for the trunk (:mod:`sflam.simulate.trunk_queue`)
2. a step is made when the trunk has computed it, with the trunk as it then is (:mod:`sflam.learn.paced_trunk`)
3. the next version has the devices' halves by their buffered updates, and the trunk as it is
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sflam.cost.timing import Stages
from sflam.learn.paced_trunk import PacedTrunk
from sflam.learn.staleness import Update
from sflam.learn.steps import Average, Steps
from sflam.model.adapters import State, state_of
from sflam.simulate.arrivals import Spent, cycle_of
from sflam.simulate.buffered import PacedSimulation
from sflam.simulate.clock import RoundCost
from sflam.simulate.step_cycle import StepCycle, spent_since, step_shares
from sflam.simulate.trunk_queue import TrunkQueue


class SharedTrunkSimulation(PacedSimulation[StepCycle]):
    """Devices that share a trunk: how long a cycle takes hangs on who else is there."""

    stepwise = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.paced = PacedTrunk(self.halves)
        self.queue = TrunkQueue(one_by_one=self.paced.trunk.one_by_one, step=self._step)

    def before(self, round: int, state: State) -> None:
        """Begin a version, whose trunk is the one that there is."""
        self.paced.open(state)
        super().before(round, state)

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Take what came; return the bytes of the versions that it began with."""
        self._updates, self._steps, self._sent = [], Steps(), 0
        received = 0
        for cycle, counts in [
            *((one, True) for one in self.counted),
            *((one, False) for one in self.refused),
        ]:
            outcome = self.paced.outcomes.pop((cycle.device, cycle.number))
            steps = outcome.steps
            self._steps.add(steps if counts else replace(steps, samples={}, device_losses={}, losses=0.0))
            self._sent += outcome.sent
            received += outcome.received
            if counts:
                self._updates.append(
                    Update(
                        device=cycle.device,
                        staleness=round - cycle.version,
                        rows=steps.samples[cycle.device],
                        begun=self.versions[cycle.version],
                        trained=outcome.trained,
                    )
                )
        return received

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the next version: the devices' halves by their updates, the trunk as it is."""
        found = super().average(round, devices, steps)
        return replace(found, state=found.state | self.paced.taken())

    def state(self) -> dict[str, Any]:
        """Return what, beside the newest version, must survive a crash between two of them."""
        return super().state() | {
            "queue": self.queue.state(),
            "waiting": [cycle.kept() for cycle in self.waiting],
            "paced": self.paced.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        super().restore(state)
        self.queue.restore(state["queue"])
        self.waiting = [StepCycle(**values) for values in state["waiting"]]
        self.paced.restore(state["paced"], state_of(self.halves.model))

    def _step(self, group: Sequence[StepCycle]) -> None:
        self.paced.step([(cycle.device, cycle.number, cycle.step) for cycle in group])

    def _come(self) -> Sequence[StepCycle]:
        found = self.queue.next()
        self.clock = self.queue.clock
        for cycle in found:
            self.paced.deliver(cycle.device, cycle.number, self.versions[cycle.version])
        return found

    def _going(self) -> Sequence[StepCycle]:
        return [cycle for _, cycle in sorted(self.queue.under_way.items())]

    def _start(self, cost: RoundCost, place: int, stages: Stages | None, **who: Any) -> None:
        assert stages is not None
        device, number = who["device"], who["number"]
        whole = cycle_of(cost, place, **who)
        batches = self.paced.batches(device, number)
        rows, turn = sum(map(len, batches)), self._turn(whole.cost["server_s"], place)
        self.queue.under_way[device] = StepCycle(
            device=device,
            number=number,
            version=whole.version,
            begun=whole.begun,
            cost={**whole.cost, "server_s": 0.0},
            shares=step_shares(stages, place, len(batches)),
            turns=tuple(turn * len(batch) / rows for batch in batches),
            since=whole.begun,
            paid={},
        )
        self.paced.begin(device, number, self.versions[whole.version])

    def _turn(self, seconds: float, place: int) -> float:
        """Return the s that the trunk computes for a cycle, of ``seconds`` for a cycle of every device."""
        assert self.turn is not None
        batches = self.planner.mini_batches(self.turn.devices)
        return seconds * float(batches[place] / batches.sum())

    def _spent(self, cycles: Sequence[StepCycle]) -> Spent:
        return spent_since(cycles, self.clock)

    def _groups(self) -> tuple[tuple[int, ...], ...]:
        found, self.queue.groups = tuple(self.queue.groups), []
        return found
