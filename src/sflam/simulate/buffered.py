"""Buffered rounds on a virtual clock: every device at its own pace, a new version whenever M updates have come.

    1. one plan shares out the network among all devices; each keeps its part of it
    2. a device downloads the newest version, trains it, sends what came of it, and begins anew
    3. with the M-th update the next version is made (:mod:`sflam.learn.staleness`); updates that come at the instant in
       which it is made are in it or wait for the next, and their devices begin with the newest

Updates are trained when they come (:mod:`sflam.learn.versions`), with the draws of the round that has the number of
their device's own cycle: with M = K and equal devices, versions are the rounds of ``learn.sync = "round"``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar, cast

from sflam.config import Job
from sflam.cost.timing import Stages
from sflam.errors import AllocationError
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.staleness import too_stale
from sflam.learn.steps import Average, Steps
from sflam.learn.versions import VersionedFleet
from sflam.model.adapters import State, state_of
from sflam.network.network import Network
from sflam.network.scenario import build
from sflam.records.charge import Charge
from sflam.records.history import RoundRecord
from sflam.simulate.arrivals import Cycle, PaidCycle, Spent, cycle_of, first, paid, spent
from sflam.simulate.buffer_charge import Come, charged_buffer
from sflam.simulate.cell_planner import CellPlanner
from sflam.simulate.clock import RoundCost
from sflam.simulate.draws import Draws
from sflam.simulate.keeping import kept_turn, turn_kept
from sflam.simulate.planner import Turn

C = TypeVar("C", bound=PaidCycle)


class PacedSimulation(VersionedFleet, Generic[C]):
    """A fleet whose versions are made of the first M updates that come; a subclass has when they come.

    Args:
        halves: the fleet that trains.
        planner: plans once.
        job: the settings.
        notes: sentences for the user about the simulation.
    """

    stepwise = False
    """Whether cycles are looked at step by step."""

    def __init__(
        self, halves: LocalFleet, planner: CellPlanner, job: Job, notes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(halves)
        self.planner, self.job = planner, job
        self.size = job.learn.buffer or job.fleet.devices
        self.clock = 0.0
        self.turn: Turn | None = None
        self.waiting: list[C] = []
        """Updates that came, and are in no version yet."""
        self.behind: list[C] = []
        """Of these, those that became too old for any version while they waited."""
        self.idle: list[int] = list(range(job.fleet.devices))
        self.numbers = [0] * job.fleet.devices
        self.come = Come()
        self.charge: Charge | None = None
        self._notes = notes
        self._costs: dict[tuple[int, int], tuple[RoundCost, Stages | None]] = {}
        self._seconds = 0.0

    @property
    def name(self) -> str:
        """That of the wrapped fleet, and how it is synchronised: a checkpoint is of either."""
        return f"{self.inner.name}-buffered"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the simulation."""
        return (*self.inner.notes, *self._notes)

    def before(self, round: int, state: State) -> None:
        """Let the devices that have nothing to do begin with the version ``state``."""
        self._seconds = self.planner.seconds
        super().before(round, state)
        if self.turn is None:
            self._plan()
        self.behind = [cycle for cycle in self.waiting if self._behind(round, cycle)]
        self.waiting = [cycle for cycle in self.waiting if not self._behind(round, cycle)]
        if len(self.waiting) < self.size:
            self._begin(round)

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices of the first M updates that come."""
        refused, began = [*self.behind], self.clock
        while len(self.waiting) < self.size:
            for cycle in self._come():
                self.idle.append(cycle.device)
                (refused if self._behind(round, cycle) else self.waiting).append(cycle)
            if len(self.waiting) < self.size:
                self._begin(round)
        self.come = Come(
            version=round,
            began=began,
            now=self.clock,
            cycles=tuple(self.waiting[: self.size]),
            refused=tuple(refused),
            groups=self._groups(),
        )
        self.counted, self.refused = self.come.cycles, self.come.refused
        self.waiting = self.waiting[self.size :]
        return tuple(sorted({cycle.device for cycle in self.come.cycles}))

    @abstractmethod
    def _come(self) -> Sequence[C]:
        """Let time pass until updates come; return their cycles, which are no longer under way."""

    @abstractmethod
    def _going(self) -> Sequence[C]:
        """Return the cycles under way, by device."""

    @abstractmethod
    def _start(self, cost: RoundCost, place: int, stages: Stages | None, **who: Any) -> None:
        """Let the device at ``place`` of a plan begin a cycle.

        Args:
            cost: of a cycle of each device.
            place: its place in the plan.
            stages: of their steps, where they are looked at one by one.
            who: the attributes of :class:`sflam.simulate.arrivals.PaidCycle`, ``static_w`` and ``server_j``.
        """

    @abstractmethod
    def _spent(self, cycles: Sequence[C]) -> Spent:
        """Return what cycles spent since they were charged before."""

    def _groups(self) -> tuple[tuple[int, ...], ...]:
        """Return the devices of each group of frames of a trunk that serves all, since the version before."""
        return ()

    def _behind(self, version: int, cycle: PaidCycle) -> bool:
        """Whether an update is too far behind for the version after ``version``."""
        return too_stale(self.job.learn.staleness, version - cycle.version)

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the next version, and charge for the seconds since the last."""
        found = super().average(round, devices, steps)
        self._charge(steps)
        needed = {cycle.version for cycle in (*self._going(), *self.waiting)}
        self.versions = {version: state for version, state in self.versions.items() if version in needed}
        self._costs.clear()
        return found

    def after(self, record: RoundRecord) -> RoundRecord:
        """Return the record with its charge, and with the host's time of planning."""
        planning = self.planner.seconds - self._seconds
        return replace(self.inner.after(record), charge=self.charge, planning_s=planning)

    def state(self) -> dict[str, Any]:
        """Return what, beside the newest version, must survive a crash between two of them."""
        return super().state() | {
            "clock": self.clock,
            "turn": None if self.turn is None else kept_turn(self.turn),
            "versions": dict(self.versions),
            "idle": list(self.idle),
            "numbers": list(self.numbers),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        super().restore(state)
        self.clock, self.idle, self.numbers = state["clock"], list(state["idle"]), list(state["numbers"])
        self.turn = None if state["turn"] is None else turn_kept(state["turn"], self.planner)
        like = state_of(self.halves.model)
        self.versions = {
            int(version): {name: own[name].to(like[name]) for name in own}
            for version, own in state["versions"].items()
        }
        if self.turn is not None:
            self._place(self.turn)

    def _plan(self) -> None:
        """Share the network out among all devices, for the whole run."""
        every = tuple(range(self.job.fleet.devices))
        self._show(0)
        self.turn, dropped = self.planner.ask(0, self._network(0), every)
        if self.turn is None or dropped:
            raise AllocationError(
                f"devices {', '.join(map(str, dropped[:5]))} cannot keep the limits of the plan; buffered rounds have "
                "all devices at work, so relax the limits on energy"
            )
        self._place(self.turn)

    def _place(self, turn: Turn) -> None:
        self.planner.place(turn.placements)
        self.inner.place(self.planner.placements)

    def _network(self, version: int) -> Network:
        return build(self.job.network, self.job.seed, version)

    def _show(self, number: int) -> None:
        """Let the planner see the mini-batches that devices have in cycles with a number."""
        self.planner.draws = Draws(self.halves, self.planner.modelled.tokens, number)

    def _begin(self, version: int) -> None:
        """Let idle devices download a version now."""
        assert self.turn is not None
        network = self._network(version)
        for device in sorted(self.idle):
            number = self.numbers[device]
            key = version, number
            if key not in self._costs:
                self._show(number)
                stages = self.planner.stages(network, self.turn) if self.stepwise else None
                self._costs[key] = self.planner.expected(network, self.turn), stages
            (cost, stages), place = self._costs[key], self.turn.devices.index(device)
            steps = self.planner.mini_batches(self.turn.devices)
            self._start(
                cost,
                place,
                stages,
                device=device,
                number=number,
                version=version,
                begun=self.clock,
                static_w=float(network.static_power[device]),
                server_j=cost.server_j * float(steps[place] / steps.sum()),
            )
            self.numbers[device] += 1
        self.idle = []

    def _charge(self, steps: Steps) -> None:
        assert self.turn is not None
        ended = (*self.come.cycles, *self.come.refused)
        cycles = [*cast(Sequence[C], ended), *self.waiting, *self._going()]
        self.charge = charged_buffer(self.turn, self.come, cycles, self._spent(cycles), steps)


class BufferedSimulation(PacedSimulation[Cycle]):
    """Devices each with a copy of the trunk: how long a cycle takes is known when it begins."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.under_way: dict[int, Cycle] = {}

    def state(self) -> dict[str, Any]:
        """Return what, beside the newest version, must survive a crash between two of them."""
        return super().state() | {
            "under_way": [cycle.kept() for cycle in self._going()],
            "waiting": [cycle.kept() for cycle in self.waiting],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        super().restore(state)
        self.under_way = {values["device"]: Cycle(**values) for values in state["under_way"]}
        self.waiting = [Cycle(**values) for values in state["waiting"]]

    def _come(self) -> Sequence[Cycle]:
        soon = first(self.under_way.values())
        self.clock = max(cycle.ends for cycle in soon)
        return [self.under_way.pop(cycle.device) for cycle in soon]

    def _going(self) -> Sequence[Cycle]:
        return [cycle for _, cycle in sorted(self.under_way.items())]

    def _start(self, cost: RoundCost, place: int, stages: Stages | None, **who: Any) -> None:
        self.under_way[who["device"]] = cycle_of(cost, place, **who)

    def _spent(self, cycles: Sequence[Cycle]) -> Spent:
        found, now = spent(cycles, self.clock), self.clock
        self.under_way = {device: paid(cycle, now) for device, cycle in self.under_way.items()}
        self.waiting = [paid(cycle, now) for cycle in self.waiting]
        return found


def waiting_note(job: Job) -> tuple[str, ...]:
    """Return the note on updates that a bound on staleness throws away."""
    if not job.learn.staleness:
        return ()
    return (
        f"learn.staleness = {job.learn.staleness}: updates further behind are thrown away, so a device that is always "
        "slower has no part in what is learnt; see charge.buffer.refused in the history",
    )
