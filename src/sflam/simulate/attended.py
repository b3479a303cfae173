"""A simulated fleet whose devices come late, leave, and fail, and whose rounds need not wait for all of them.

    for every round:
        1. it is opened once as many devices are there as its quorum has
        2. the plan of the devices that are there tells when each would deliver
        3. some fail or leave before that; the round is closed once its quorum has delivered and the grace is over
        4. what the others had done is charged, and is in no average

A round that ends without its quorum is opened once more, as a served one is; ending so twice ends the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.config import Job
from sflam.errors import AllocationError
from sflam.learn.attendance import Attendance, AttendedFleet
from sflam.learn.fleet import Fleet
from sflam.learn.steps import Average, Steps
from sflam.model.adapters import State
from sflam.network.presence import Presence
from sflam.network.scenario import build
from sflam.records.charge import RoundClose
from sflam.simulate.cell_planner import CellPlanner
from sflam.simulate.clock import RoundCost
from sflam.simulate.closing import Close, closing, steps_share, until
from sflam.simulate.fleet import SimulatedFleet
from sflam.simulate.planner import Turn

OPENINGS = 2
"""How often a round is opened before the run ends for want of a quorum."""


class AttendedSimulation(SimulatedFleet):
    """A simulated fleet of devices that come and go; see :class:`SimulatedFleet`.

    Args:
        presence: who is there when, and who fails.
    """

    def __init__(
        self,
        inner: Fleet,
        planner: CellPlanner,
        job: Job,
        halves: AttendedFleet | None = None,
        notes: tuple[str, ...] = (),
        *,
        presence: Presence,
    ) -> None:
        super().__init__(inner, planner, job, halves, notes)
        self.presence, self.trains = presence, halves
        self.present: NDArray[np.bool_] = presence.there(0.0)
        self._planned_for: NDArray[np.bool_] | None = None
        self._done: list[tuple[Turn, RoundCost, Close]] = []
        """The openings of the round, the last of which counts."""
        self._waited = 0.0
        self._closed: RoundClose | None = None

    def before(self, round: int, state: State) -> None:
        """Open the round, and find out who delivers in it.

        Raises:
            AllocationError: too few devices ever come, or the quorum was missed twice.
        """
        self._done, self._waited = [], 0.0
        for opening in range(OPENINGS):
            self._wait(round)
            super().before(round, state)
            self._planned_for = self.present
            (turn,) = self.in_force
            cost, close = self._opened(round, opening, turn)
            self._done.append((turn, cost, close))
            if close.delivered.sum() >= min(self._fewest(), len(turn.devices)):
                break
        else:
            raise AllocationError(
                f"round {round + 1}: {int(close.delivered.sum())} of at least {self._fewest()} devices delivered, "
                "twice in a row; lower fleet.quorum, or network.failure"
            )
        self._attend(round, turn, cost, close)

    def able(self) -> NDArray[np.bool_]:
        """Return [K] whether a device may be taken at all: it is there, and its battery is not empty."""
        return super().able() & self.present

    def is_outdated(self) -> bool:
        """Whether others are there than the plan in force was made for, or a battery is too empty for it."""
        changed = self._planned_for is None or bool((self._planned_for != self.present).any())
        return changed or super().is_outdated()

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Run the local steps of the devices; whole models of those that deliver alone, as nothing else is sent."""
        if self.halves is not None:
            return self.inner.local_steps(round, devices)
        return self.inner.local_steps(round, self._delivered())

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the average over the devices that delivered, and charge for all that was done."""
        return super().average(round, self._delivered(), steps)

    def paid(self, steps: Steps) -> list[tuple[Turn, RoundCost]]:
        """Return the openings of the round and what each cost."""
        return [
            (turn, until(cost, close.stops, self.network.static_power[list(turn.devices)], *_present(close)))
            for turn, cost, close in self._done
        ]

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds."""
        known = None if self._planned_for is None else self._planned_for.tolist()
        return super().state() | {"planned_for": known}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        super().restore(state)
        known = state["planned_for"]
        self._planned_for = None if known is None else np.array(known, bool)

    def _charge(self, devices: Sequence[int], steps: Steps) -> None:
        began = self.clock
        self.clock += self._waited
        super()._charge(devices, steps)
        assert self.charge is not None and self._closed is not None
        left = dict.fromkeys(self._closed.left_out, 0.0)
        for turn, cost in self.paid(steps):
            left |= {d: left[d] + j for d, j in zip(turn.devices, cost.device_j, strict=True) if d in left}
        close = replace(self._closed, spent_j=tuple(float(joules) for joules in left.values()))
        self.charge = replace(self.charge, seconds=self.clock - began, close=close)

    def _fewest(self) -> int:
        """Return the devices whose result a round needs at least."""
        return max(1, self.job.fleet.fewest)

    def _delivered(self) -> tuple[int, ...]:
        turn, _, close = self._done[-1]
        return tuple(sorted(np.array(turn.devices)[close.delivered].tolist()))

    def _now(self) -> float:
        """Return the clock at the opening that comes next, s."""
        return self.clock + self._waited + sum(close.seconds for _, _, close in self._done)

    def _wait(self, round: int) -> None:
        """Let the clock run until a quorum is there."""
        now = self._now()
        comes = np.sort(self.presence.comes(now)[super().able()])
        least = min(self._fewest(), len(self.presence))
        if len(comes) < least or math.isinf(comes[least - 1]):
            raise AllocationError(
                f"round {round + 1}: at {now:.6g} s no more than {int(np.isfinite(comes).sum())} devices are there or "
                f"still come, and it needs {least}; lower fleet.quorum, let devices stay longer, or run fewer rounds"
            )
        while int((self.presence.there(now) & super().able()).sum()) < least:
            # those that came may have left again before the last one
            later = self.presence.comes(now)[super().able()]
            gone = self.presence.leaves(now)
            ahead = [*later[later > now].tolist(), *gone[(gone > now) & np.isfinite(gone)].tolist()]
            if not ahead:
                raise AllocationError(
                    f"round {round + 1}: {least} devices are never there at once; lower fleet.quorum, or let them "
                    "stay longer"
                )
            now = min(ahead)
        self._waited += now - self._now()
        self.present = self.presence.there(now)

    def _opened(self, round: int, opening: int, turn: Turn) -> tuple[RoundCost, Close]:
        """Return what an opening costs where none leaves it, and how it ends."""
        now, who = self._now(), list(turn.devices)
        assert isinstance(self.planner, CellPlanner), "several servers are refused"
        cost = self.planner.expected(build(self.job.network, self.job.seed, round), turn)
        ends = cost.finish + cost.adapters
        failing = self.presence.failing(self.job.seed, round, opening)[who] * ends
        gone = np.minimum(failing, self.presence.leaves(now)[who] - now)
        return cost, closing(
            ends, gone, self._fewest() if self.job.fleet.fewest else 0, self.job.fleet.grace_s
        )

    def _attend(self, round: int, turn: Turn, cost: RoundCost, close: Close) -> None:
        """Let the fleet that trains have those who came, and note who did not stay."""
        who, share = np.array(turn.devices), steps_share(cost, close.stops)
        made = dict[int, int]()
        if self.halves is not None:
            drawn = self.halves.drawn(round, sorted(who.tolist()))
            own = {device: sum(len(rows) > 0 for rows in drawn[device]) for device in who.tolist()}
            made = {
                device: math.floor(own[device] * part + 1e-9)
                for device, part in zip(who.tolist(), share.tolist(), strict=True)
            }
        failed, late = (tuple(sorted(who[which].tolist())) for which in (close.failed, close.late))
        stopped = dict(zip(who.tolist(), close.stops.tolist(), strict=True))
        began = self._now() - close.seconds
        self._closed = RoundClose(
            absent=tuple(np.flatnonzero(~self.present).tolist()),
            failed=failed,
            late=late,
            stopped=tuple(began + stopped[device] for device in failed + late),
            steps=tuple(made.get(device, 0) for device in failed + late),
            openings=len(self._done),
            waited_s=self._waited,
            lost_s=float(sum(one.seconds for _, _, one in self._done[:-1])),
        )
        if self.trains is not None:
            left = {device: made[device] for device in failed + late}
            self.trains.attendance = {
                round: Attendance(delivered=self._delivered(), left=tuple(sorted(left)), made=left)
            }


def _present(close: Close) -> tuple[Any, float]:
    """Return [n] s for which each device drew static power, and the s of an opening: who failed draws none after."""
    return np.where(close.failed, close.stops, close.seconds), close.seconds
