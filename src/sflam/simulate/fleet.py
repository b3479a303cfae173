"""A fleet on a virtual clock: every round is planned over the network as it then is, carried out, and charged.

    for every round:
        1. the fading of the round is drawn, or read from the trace
        2. devices are chosen, the planner is asked, and devices that cannot keep the limits are dropped
        3. the devices train with exactly the plan's bits, cuts and servers
        4. time and energy are charged for the bits really sent over this round's channel

Nothing here depends on how fast the host is. K devices.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.registry import method_of
from sflam.config import Job
from sflam.cost.timing import BARRIER
from sflam.errors import AllocationError
from sflam.learn.fleet import Fleet, FleetAround
from sflam.learn.methods import timing_of
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.steps import Average, Steps
from sflam.model.adapters import State
from sflam.network.network import Floats, Network
from sflam.network.scenario import build
from sflam.network.settings import NetworkSettings
from sflam.plan import Placement
from sflam.planner.cell import chooses_down
from sflam.records.charge import Calibration, Charge
from sflam.records.history import RoundRecord
from sflam.simulate.calibrated import calibrated, compared
from sflam.simulate.cell_planner import CellPlanner
from sflam.simulate.clock import RoundCost
from sflam.simulate.draws import Draws
from sflam.simulate.keeping import kept_turn, turn_kept
from sflam.simulate.ledger import charged, rest_j
from sflam.simulate.planner import NO_ROWS, Planner, Turn, Unkept
from sflam.simulate.policies import FORESEEN, POLICIES, Known
from sflam.simulate.step_times import StepCost, step_costs
from sflam.simulate.warm import IMAGINED, Ahead, begin, expect_enough
from sflam.sizes import is_variable
from sflam.units import human_si
from sflam.workload import Workload


class SimulatedFleet(FleetAround):
    """A fleet whose rounds are planned, and charged for on a virtual clock.

    Args:
        inner: the fleet that trains.
        planner: plans every round.
        job: the settings.
        halves: the fleet of a cut model, whose steps are measured; None where no model is cut.
        notes: sentences for the user about the simulation.
    """

    def __init__(
        self,
        inner: Fleet,
        planner: Planner,
        job: Job,
        halves: LocalFleet | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(inner)
        self.planner, self.job, self.halves = planner, job, halves
        every = len(job.placements)
        self.clock = 0.0
        self.losses = np.full(every, np.inf)
        self.battery = np.full(every, job.network.battery_j) if job.network.battery_j else None
        self.in_force: list[Turn] = []
        self.dropped: tuple[int, ...] = ()
        self.planned = -1
        self.charge: Charge | None = None
        self.host_s: tuple[float, float] = (0.0, 0.0)
        self.measuring_s = 0.0
        self.costs: tuple[StepCost, ...] = ()
        self._notes = notes
        self.recalled: dict[tuple[int, bool], Draws] | None = None
        """Draws of rounds that are simulated more than once, by what they are of; None remembers none."""
        self.built: dict[int, tuple[NetworkSettings, Network]] | None = None
        """And their networks, by round, with what they were drawn from."""

    @property
    def name(self) -> str:
        """The wrapped fleet's: the virtual clock changes nothing about training."""
        return self.inner.name

    @property
    def counts_all(self) -> bool:
        """Whether charges are of all that crosses, as plans are."""
        return self.planner.counts_all

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the simulation."""
        return (*self.inner.notes, *self._notes)

    def before(self, round: int, state: State) -> None:
        """Draw the channel, plan where that is due, and let the devices follow the plan."""
        self.inner.before(round, state)
        self.host_s = self.planner.seconds, self.measuring_s
        self.network = self._built(round)
        if self.job.network.calibrate and not self.costs:
            assert self.halves is not None, "network.calibrate is refused without a cut"
            self._calibrate(step_costs(self.halves))
        self._show(round)
        every = self.job.plan.every
        if self.planned < 0 or (every and round % every == 0) or self.is_outdated():
            self._plan(round, state)
            self._follow()
        # What a round makes and sends is known before it, and charged after it.
        for turn in self.in_force:
            if self.planner.unkept:
                self.planner.unkept.of(turn.devices)
            for draws in (self.planner.draws, self.planner.waited):
                if draws:
                    draws.each(turn.devices)

    def _built(self, round: int) -> Network:
        """Return the network of a round: that of others charged anew, where it is theirs too."""
        settings, known = self.job.network, self.built
        if known is None:
            return build(settings, self.job.seed, round)
        if round not in known or known[round][0] != settings:
            known[round] = settings, build(settings, self.job.seed, round)
        return known[round][1]

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices that the plan in force counts on."""
        return tuple(sorted(device for turn in self.in_force for device in turn.devices))

    def place(self, placements: Sequence[Placement]) -> None:
        """Put devices where a plan has them, and all others where they start."""
        self.planner.place(placements)
        self.inner.place(self.planner.placements)

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the average of what the devices trained, and charge for the round."""
        average = self.inner.average(round, devices, steps)
        for device, loss in steps.device_losses.items():
            self.losses[device] = loss / steps.samples[device]
        self._charge(devices, steps)
        return average

    def after(self, record: RoundRecord) -> RoundRecord:
        """Return the record with its charge, and with the host's time of planning and measuring."""
        planning, measuring = self.host_s
        return replace(
            self.inner.after(record),
            charge=self.charge,
            planning_s=self.planner.seconds - planning,
            measuring_s=self.measuring_s - measuring,
        )

    def state(self) -> dict[str, Any]:
        """Return what, beside the global adapters, must survive a crash between rounds."""
        return super().state() | {
            "clock": self.clock,
            "losses": self.losses.tolist(),
            "queues": self.planner.queues.tolist(),
            "patience": self.planner.patience.tolist(),
            "battery": None if self.battery is None else self.battery.tolist(),
            "turns": [kept_turn(turn) for turn in self.in_force],
            "dropped": list(self.dropped),
            "planned": self.planned,
            "costs": [asdict(cost) for cost in self.costs],
            "feedback": self.planner.feedback.state() if self.planner.feedback else {},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        super().restore(state)
        self.clock, self.planned = state["clock"], state["planned"]
        self.losses, self.planner.queues = np.array(state["losses"]), np.array(state["queues"])
        self.planner.patience = np.array(state["patience"])
        self.battery = None if state["battery"] is None else np.array(state["battery"])
        self.in_force = [turn_kept(turn, self.planner) for turn in state["turns"]]
        self._follow()
        self.dropped = tuple(state["dropped"])
        self._calibrate(tuple(StepCost(**cost) for cost in state["costs"]))
        if self.planner.feedback:
            self.planner.feedback.restore(state["feedback"])

    def _follow(self) -> None:
        """Put devices where the plans in force have them."""
        self.place([placement for turn in self.in_force for placement in turn.placements])

    def _calibrate(self, costs: tuple[StepCost, ...]) -> None:
        self.costs = costs
        if costs:
            network = build(self.job.network, self.job.seed)
            self.planner.workload = calibrated(
                self.planner.modelled, costs, network, bodies=not self.counts_all
            )

    def _begin_budgets(self) -> None:
        """Find the prices and the patience of a run with budgets, before its first round."""
        job = self.job
        run = range(job.learn.rounds)
        planner = self.planner
        assert isinstance(planner, CellPlanner), "budgets are refused with several servers"
        now = planner.draws, planner.unkept, planner.waited
        if job.fleet.policy in FORESEEN and self.battery is None:
            expect_enough(planner, self._ahead(run, known=True))
        # All that is known of a trace is its rows; else with fading that no round of the run has.
        imagined = run[:IMAGINED] if job.network.trace else range(len(run), len(run) + IMAGINED)
        begin(planner, self._ahead(imagined))
        planner.draws, planner.unkept, planner.waited = now

    def _show(self, round: int) -> None:
        """Let the planner see what is known of a round before it."""
        planner = self.planner
        planner.draws, planner.unkept, planner.waited = self._drawn(round)

    def _drawn(self, round: int, *, known: bool = False) -> tuple[Draws | None, Unkept | None, Draws | None]:
        """Return what a round's mini-batches hold, what devices must still make of it, where each is counted, and the
        first again where devices wait for each other.

        Args:
            round: its number.
            known: whether all that can be kept already is, as at best.
        """
        halves, draws, unkept = self.halves, None, None
        if halves is not None and self.job.learn.cache != "off":
            made = (lambda who: dict.fromkeys(who, 0)) if known else partial(halves.unkept, round)
            unkept = Unkept(made, self.job.learn.batch)
        waits = timing_of(self.job) == BARRIER and not self.planner.several
        if halves is not None and (self.counts_all or waits):
            draws = (self.recalled or {}).get((round, known)) or Draws(
                halves, self.planner.modelled.tokens, round, known=known
            )
            if self.recalled is not None:
                self.recalled[round, known] = draws
        return draws if self.counts_all else None, unkept, draws if waits else None

    def _ahead(self, numbers: Iterable[int], *, known: bool = False) -> list[Ahead]:
        """Return rounds as far as they are known before the first; see :meth:`_drawn`."""
        policy = self.job.fleet.policy
        if policy == "loss":
            policy = "uniform"  # there are no losses yet
        found = []
        for number in numbers:
            there = self._built(number)
            devices = POLICIES[policy](self._known(number, there))
            draws, unkept, waited = self._drawn(number, known=known)
            found.append(Ahead(network=there, devices=devices, draws=draws, unkept=unkept, waited=waited))
        return found

    def _plan(self, round: int, state: State) -> None:
        if self.planned < 0 and self.job.plan.budget:
            self._begin_budgets()
        chosen = POLICIES[self.job.fleet.policy](self._known(round, self.network))
        if self.planner.feedback:
            began = time.perf_counter()
            self.planner.feedback.update(round, chosen, state)
            self.measuring_s += time.perf_counter() - began
        groups = self.inner.turns(round, chosen)
        asked = [self.planner.ask(round, self.network, group, self.battery) for group in groups]
        self.in_force = [turn for turn, _ in asked if turn is not None]
        if not self.in_force:
            raise AllocationError(self._no_device(round))
        self.dropped = tuple(sorted(device for _, dropped in asked for device in dropped))
        self.planned = round

    def is_outdated(self) -> bool:
        """Whether the plan in force counts on a device that has less left than the plan takes."""
        left = self.battery
        if left is None:
            return False
        takes = [(turn.devices, turn.plan.devices.device_j) for turn in self.in_force]
        return any((left[list(devices)] < joules).any() for devices, joules in takes)

    def _no_device(self, round: int) -> str:
        """Return why a round has no device, and what to change."""
        start = f"round {round + 1}: no device can take part"
        if self.battery is None:
            return f"{start}; relax plan.deadline or the limits on energy"
        left, empty = float(self.battery.max()), int((self.battery <= 0).sum())
        other = ", or relax plan.deadline" if self.job.plan.deadline else ""
        return (
            f"{start}: of {len(self.battery)} batteries {empty} are empty, the fullest holds {human_si(left, 'J')}, "
            f"too little for a round; raise network.battery_j, or run fewer rounds{other}"
        )

    def _known(self, round: int, network: Network) -> Known:
        left = self.battery
        return Known(
            settings=self.job.fleet,
            seed=self.job.seed,
            round=round,
            gain=network.gain.max(axis=0),
            energy=(lambda: self.planner.dearest(network)) if left is None else (lambda: -left),
            loss=self.losses,
            able=self.able(),
            samples=self.planner.samples,
        )

    def paid(self, steps: Steps) -> list[tuple[Turn, RoundCost]]:
        """Return the turns of the round, one after another, and what each cost."""
        return [(turn, self._cost(turn, steps)) for turn in self.in_force]

    def able(self) -> NDArray[np.bool_]:
        """Return [K] whether a device may be taken at all."""
        every = len(self.planner.placements)
        return np.ones(every, bool) if self.battery is None else self.battery > 0

    def _charge(self, devices: Sequence[int], steps: Steps) -> None:
        paid = self.paid(steps)
        rest = self._rest_j(paid)
        if self.battery is not None:
            for turn, cost in paid:
                self.battery[list(turn.devices)] -= cost.device_j  # below 0: overdrawn
            rest = np.minimum(rest, np.maximum(self.battery, 0.0))  # an empty one draws none
            self.battery -= rest
        if self.job.plan.budget:
            mine = [device for turn, _ in paid for device in turn.devices]
            self.planner.spend(mine, np.concatenate([cost.counted for _, cost in paid]))
        self.charge = charged(
            paid,
            devices,
            steps,
            began=self.clock,
            wish=self.job.plan,
            battery=self.battery,
            dropped=self.dropped,
            planned=self.planned,
            cut=not self.planner.once,
            several=self.planner.several,
            slowdowns=self._slowdowns(devices),
            slowdowns_down=self._slowdowns_down(devices),
            calibration=self._calibration(devices, steps),
            beyond_plans=float(rest.sum()),
            variable=is_variable(self.planner.modelled.scheme),
        )
        self.clock = self.charge.clock

    def _rest_j(self, paid: Sequence[tuple[Turn, RoundCost]]) -> Floats:
        """Return the J [K] of static power beyond what plans count, where that is charged."""
        if not self.job.network.idle_always:
            return np.zeros(len(self.planner.placements))
        return rest_j(paid, self.network.static_power, several=self.planner.several)

    def _slowdowns(
        self, devices: Sequence[int]
    ) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...]]:
        """Return chi of each device, and where it was measured the error and the fewest bits of each."""
        found, wish = self.planner.slowdown(devices), self.job.plan
        if found is not None:
            floor = tuple(found.floor.tolist()) if wish.bias_share else ()
            return tuple(found.chi.tolist()), tuple(found.half.tolist()), floor
        return (wish.sensitivity,) * len(devices) if "bits" in wish.optimize else (), (), ()

    def _slowdowns_down(self, devices: Sequence[int]) -> tuple[float, ...]:
        """Return chi of each device's way down; nothing where plans do not choose its bits."""
        if not chooses_down(self.job, method_of(self.job.plan)):
            return ()
        found = self.planner.slowdown(devices)
        if found is not None:
            return tuple(found.down.tolist())
        return (self.job.plan.sensitivity_down,) * len(devices)

    def _calibration(self, devices: Sequence[int], steps: Steps) -> Calibration | None:
        """Return what the round would have cost as modelled, beside what was measured."""
        if not self.costs:
            return None
        modelled = self.planner.modelled
        paid = [self._cost(turn, steps, modelled) for turn in self.in_force]
        cuts = [self.planner.placements[device].cut for device in devices]
        return compared(self.costs, modelled, self.network, cuts, steps, paid)

    def _cost(self, turn: Turn, steps: Steps, workload: Workload | None = None) -> RoundCost:
        """Return the cost of a turn; with a ``workload``, the cost that it gives."""
        whole = self.counts_all or (bool(self.costs) and workload is None)
        books = (steps.sent, steps.received) if whole else (steps.payload_up, steps.payload_down)
        up, down = (
            np.array([float(book.get(device, 0)) * (8 if whole else 1) for device in turn.devices])
            for book in books
        )
        return self.planner.cost(self.network, turn, up, down, workload, self._computed(turn, steps))

    def _computed(self, turn: Turn, steps: Steps) -> Floats | None:
        """Return the mini-batches [n] that devices really had, where shares are drawn; None where as expected."""
        if self.job.sampling == "local":
            return None
        # A device whose every share is zero computes next to nothing; a problem has no device without work.
        rows = np.array([float(steps.samples.get(device, 0)) for device in turn.devices])
        computed: Floats = np.maximum(rows, NO_ROWS) / self.job.learn.batch
        return computed
