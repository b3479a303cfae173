"""One trunk on the virtual clock, and devices at their own pace that wait for it.

    a frame arrives       it waits until the trunk is free
    the trunk is free     it takes all frames that are there as one group, in the order of device numbers; where it
                          takes an optimiser step a frame, in the order in which they came, at one instant by device
    it has computed       the steps are made, and the devices go on; what they deliver ends a cycle

Between a frame's way up and its answer neither its device nor the trunk changes but by the groups before it, so the
arithmetic of a whole step is done when the trunk has computed. Instants that differ by rounding are one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sflam.simulate.closing import ROUNDING
from sflam.simulate.step_cycle import DONE, TRUNK, StepCycle


class TrunkQueue:
    """The cycles under way, and what of them the trunk computes.

    Args:
        one_by_one: whether it takes an optimiser step a frame.
        step: makes the local step in which the cycles of a group are.

    Attributes:
        clock: s.
        under_way: device -> its cycle.
        groups: the devices of each group since they were last asked for.
    """

    def __init__(self, *, one_by_one: bool, step: Callable[[Sequence[StepCycle]], None]) -> None:
        self.one_by_one, self._step = one_by_one, step
        self.clock = 0.0
        self.under_way: dict[int, StepCycle] = {}
        self.groups: list[tuple[int, ...]] = []
        self._serving: tuple[int, ...] = ()
        self._free = 0.0
        """When the trunk has computed what it is computing."""

    def next(self) -> list[StepCycle]:
        """Let time pass until cycles end; return those that end then, by device."""
        while True:
            if done := self._arrive():
                return done
            self._serve()
            moving = [cycle.until for cycle in self.under_way.values() if cycle.phase != TRUNK]
            soon = min([*moving, *([self._free] if self._serving else [])])
            self.clock = max(self.clock, soon)
            if self._serving and self._now(self._free):
                self._answer()

    def _now(self, instant: float) -> bool:
        return instant <= self.clock * (1 + ROUNDING)

    def _arrive(self) -> list[StepCycle]:
        """End all ways that end now; return the cycles that have delivered."""
        for _, cycle in sorted(self.under_way.items()):
            while cycle.phase not in (TRUNK, DONE) and self._now(cycle.until):
                cycle.arrive()
        found = [cycle for _, cycle in sorted(self.under_way.items()) if cycle.phase == DONE]
        for cycle in found:
            del self.under_way[cycle.device]
        return found

    def _serve(self) -> None:
        """Let a trunk that is free begin with what is there."""
        there = [cycle for _, cycle in sorted(self.under_way.items()) if cycle.phase == TRUNK]
        if self._serving or not there:
            return
        if self.one_by_one:
            there = _in_order(there)
        self._serving = tuple(cycle.device for cycle in there)
        self._free = self.clock + sum(cycle.turns[cycle.step] for cycle in there)

    def _answer(self) -> None:
        """Make the steps of the group that the trunk has computed."""
        group = [self.under_way[device] for device in self._serving]
        self._step(group)
        self.groups.append(self._serving)
        for cycle in group:
            cycle.answer(self._free)
        self._serving = ()

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between versions."""
        return {
            "clock": self.clock,
            "cycles": [cycle.kept() for _, cycle in sorted(self.under_way.items())],
            "serving": self._serving,
            "free": self._free,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self.clock, self._free = state["clock"], state["free"]
        self._serving = tuple(state["serving"])
        self.under_way = {values["device"]: StepCycle(**values) for values in state["cycles"]}


def _in_order(cycles: Sequence[StepCycle]) -> list[StepCycle]:
    """Return cycles as they came to the trunk; those that came at one instant by device."""
    found: list[list[StepCycle]] = []
    for cycle in sorted(cycles, key=lambda one: one.since):
        if not found or cycle.since > found[-1][0].since * (1 + ROUNDING):
            found.append([])
        found[-1].append(cycle)
    return [cycle for instant in found for cycle in sorted(instant, key=lambda one: one.device)]
