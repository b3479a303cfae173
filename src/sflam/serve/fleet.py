"""A fleet of real devices behind the same seam as a simulated one."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sflam.errors import ServeError
from sflam.learn.fleet import FleetAround
from sflam.learn.screening import Screen
from sflam.learn.selection import chances_of
from sflam.learn.settings.schedule import Moment
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.steps import Average, Steps
from sflam.link.contract import Contract
from sflam.model.adapters import State
from sflam.plan import Placement
from sflam.printable import printable
from sflam.records.history import RoundRecord
from sflam.records.served_round import Prediction, of_those
from sflam.serve.choosing import drawn_devices, wanted_devices
from sflam.serve.deliveries import Deliveries, Result, shortfall
from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.gathering import Gathering
from sflam.serve.moving import Mover
from sflam.serve.openings import Openings
from sflam.serve.orders import Orders
from sflam.serve.pace import Pace
from sflam.serve.parts import Parts
from sflam.serve.probes import SECONDS
from sflam.serve.round_measure import measured_round, passes_of
from sflam.serve.round_planner import RoundPlanner
from sflam.serve.round_start import RoundStart
from sflam.serve.round_stats import RoundStats
from sflam.serve.session import Verdict
from sflam.serve.summons import Summons
from sflam.serve.trunk_worker import Worker
from sflam.serve.trunks.hosted_trunks import HostedTrunks
from sflam.sizes import IDENTITY


class Stopped(ServeError):
    """The server was asked to stop; the run goes on from its last checkpoint."""


class RemoteFleet(FleetAround):
    """Devices over a network; see :class:`sflam.learn.fleet.Fleet`.

    Args:
        local: the same job's simulated fleet, whose trunk serves and whose device half knows what is trained where.
        dispatch: where devices arrive.
        contracts: what was agreed with each.
        attempt: returns the next attempt number, larger than any before, also after a restart.
        deadline: seconds a round may last; None learns it from what rounds took.
        grace: seconds a round goes on once it has its quorum; None learns it from what devices took.
        gather: seconds a device that never came is waited for.
        notify: shows a line to the user of the server.
        stats: what the network does in a round.
        event_log: one line per event.
        planner: plans the rounds, and expects what they take; None leaves the bits as they are.
        screen: the rule by which what devices trained is judged before it is averaged.
        orders: what an operator has ordered.
        trunks: those that are on servers of their own; None serves them here.
    """

    worker_kind: type[Worker] = Worker

    def __init__(
        self,
        local: LocalFleet,
        dispatch: Dispatch,
        contracts: dict[int, Contract],
        attempt: Callable[[], int],
        *,
        deadline: float | None = None,
        grace: float | None = None,
        gather: float = 300.0,
        notify: Callable[[str], None] = lambda line: print(printable(line), file=sys.stderr),
        stats: RoundStats | None = None,
        event_log: EventLog | None = None,
        planner: RoundPlanner | None = None,
        screen: Screen | None = None,
        orders: Orders | None = None,
        trunks: HostedTrunks | None = None,
    ) -> None:
        super().__init__(local)
        self.local, self.dispatch, self.contracts = local, dispatch, contracts
        self.settings, self.notify, self._attempt = local.settings, notify, attempt
        self.pace = Pace(dispatch.session.patience, deadline, grace)
        dispatch.session.grace = self._grace
        cuts = dict(enumerate(local.devices.cuts))
        self.worker = trunks or self.worker_kind(dispatch, local.servers, local.exchange, cuts)
        self.stats, self.event_log, self.planner = stats or RoundStats(), event_log or EventLog(), planner
        self.parts = Parts(local, self.contracts)
        self.orders = orders or Orders()
        self.gathering = Gathering(dispatch, gather, notify, self.event_log, self.orders.held)
        # What comes together decides the result where one copy learns from all; and steps are the fleet's where a step
        # is one batch of all devices; to the bit it does so wherever some have no rows in a step.
        uneven = local.learn.canonical and local.sampling != "local"
        dispatch.by_step = local.servers.shared or local.sampling == "global" or uneven
        # Chances, and parts of all samples, need the samples of every device, also of those that a round does not draw.
        self._needs_all = bool(self.settings.asked) and (
            self.settings.policy == "samples"
            or (local.servers.shared and local.learn.counts_held(local.sampling))
        )
        self._reported: dict[int, int] = {}
        """What devices reported before the server was started again."""
        self.start = RoundStart(local)
        self._held: dict[int, int] = {}
        self._results: dict[int, Result] = {}
        self._expected: tuple[tuple[int, ...], Prediction] | None = None
        """The devices of the round, and what it is expected to take."""
        self._states: dict[int, State] = {}
        """Of the round, device -> what counts of what it trained."""
        self.openings = Openings()
        self.deliveries = Deliveries(local, screen or Screen(), notify, self.event_log)
        self.moving: Mover | None = None
        """Moves cuts or servers between rounds; None leaves them as they are."""
        self.summons: Summons | None = None
        """Chooses the devices of a round and calls them; None takes those of a simulation, which wait for it."""

    @property
    def name(self) -> str:
        """That of the job's own fleet, whose state a checkpoint keeps: either resumes the other's run."""
        return self.local.name

    def place(self, placements: Sequence[Placement]) -> None:
        """Give devices their own bits up and down, and cuts, from the next opening on."""
        self.local.place(placements)
        self.worker.exchange = self.local.exchange
        if self.local.exchange.scheme == IDENTITY:
            return
        with self.dispatch.locked() as session:
            assert not session.seats, "bits change between rounds"
            for placement in placements:
                device, (up, down) = placement.device, placement.bits
                self.contracts[device] = replace(self.contracts[device], bits=up, bits_down=down)

    def before(self, round: int, state: State) -> None:
        """Prepare a round that begins from the global adapters ``state``."""
        super().before(round, state)
        if self.moving:
            self.moving.begin(round, state)
        if self.summons:
            self.summons.begin(round, state)

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices of a round, once enough are present: those a simulation draws, where they are here."""
        if self.summons:
            self.summons.call(self._sitting_out(round))
        present = self.gathering.wait(round, lambda: self._needed(round), lambda: self._sitting_out(round))
        self.expect_running()
        with self.dispatch.locked() as session:
            wanted = self._wanted(round)
            out = self._sitting_out(round)
            present = tuple(device for device in present if device not in out)
            samples = {device: session.samples[device] for device in present}
        return self._planned(round, drawn_devices(self.settings, self.local.seed, round, wanted, samples))

    def _planned(self, round: int, devices: tuple[int, ...]) -> tuple[int, ...]:
        """Let the planner give the devices of a round their bits; return those that it counts on."""
        planner = self.planner
        if planner is None:
            return devices
        if sizes := planner.probes(devices):
            found = self.dispatch.probe(sizes, min(SECONDS, self.dispatch.session.patience))
            self.expect_running()
            planner.probed(found)
            for device, probe in sorted(found.items()):
                self.event_log("probed", device=device, round=round, **asdict(probe))
        choice = planner.decide(round, self.parts.of(round, devices, self.counted_samples()))
        if choice is not None:
            stays = self.local.placements
            self.place(
                [
                    replace(stays[device], bits_up=up, bits_down=down)
                    for device, (up, down) in sorted(choice.bits.items())
                ]
            )
            devices = tuple(device for device in devices if device not in choice.dropped)
            with self.dispatch.locked():
                self.dispatch.pacing = dict(choice.rate) if planner.paces else {}
            if choice.dropped:
                left_out = ", ".join(map(str, choice.dropped))
                self.notify(
                    f"round {round + 1}: devices {left_out} cannot keep plan.deadline, and are left out"
                )
            self.event_log("planned", round=round, of=choice.planned, dropped=list(choice.dropped) or None)
        expected = planner.expected(round, self.parts.of(round, devices, self.counted_samples()))
        self._expected = None if expected is None else (tuple(sorted(devices)), expected)
        return devices

    def _grace(self, elapsed: float, devices: Collection[int]) -> float:
        """Return the seconds a round goes on for devices that are late, at most to the deadline it was planned for."""
        limit = math.inf if self.planner is None else self.planner.limit
        return min(self.pace.grace(elapsed, devices), max(0.0, limit - elapsed))

    def learn(self, records: Sequence[RoundRecord]) -> None:
        """Note the rounds of a run that is gone on with."""
        self.pace.learn(records)
        if self.planner is not None:
            for record in records:
                self.planner.learn(record)

    def after(self, record: RoundRecord) -> RoundRecord:
        """Return the record of a round; the next is planned by it."""
        record = super().after(record)
        if self.planner is not None:
            self.planner.learn(record)
        return record

    def _needed(self, round: int) -> set[int]:
        """Return the devices that a round waits for: those it takes, and all whose samples must be known for that."""
        unknown = (
            set(range(self.settings.devices)) - self.counted_samples().keys() if self._needs_all else set()
        )
        return {*self._wanted(round), *unknown}

    def _wanted(self, round: int) -> tuple[int, ...]:
        """Return the devices that a simulation takes: all, until the samples are known that it draws them by."""
        if self.summons:
            return self.summons.called()
        known, out = self.counted_samples(), self._sitting_out(round)
        return wanted_devices(self.settings, self.local.seed, round, known, out)

    def _sitting_out(self, round: int) -> frozenset[int]:
        """Return the devices that a round is made without: by orders and, unless that would be all, by quarantine."""
        ordered = self.orders.out(round)
        out = self.deliveries.quarantine.out(round) | ordered
        return out if len(out) < self.settings.devices else ordered

    def counted_samples(self, round: int = 0) -> dict[int, int]:
        """Return device -> the samples it reported last, of those that ever came to the run, ascending."""
        return dict(sorted((self._reported | self.dispatch.session.samples).items()))

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Start the server's copies from the global adapters; return the bytes of what devices will fetch."""
        self.start.begin(devices, state)
        return sum(map(len, self.start.downloads(round, devices).values()))

    def opening(self, round: int, attempt: int, known: Mapping[int, int]) -> None:
        """Prepare an opening of a round, of devices with ``known`` samples, before any of them fetches anything."""

    def settle(self, round: int, attempt: int, samples: Mapping[int, int]) -> str:
        """Bring together what counts, of devices with so many rows; return why that cannot be, "" where it can."""
        return ""

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Serve a round until its devices have delivered; one that ends below its quorum is opened once more.

        Raises:
            ServeError: the quorum was missed twice.
        """
        missed = 0
        for opening in itertools.count(1):
            attempt = self._attempt()
            with self.dispatch.locked() as session:
                legs, known = session.legs, self.counted_samples()
            shares = self.parts.shares(round, devices, known)
            quorum = min(self.dispatch.session.quorum, len(devices))
            planned = {d: self.parts.steps(d, known[d], shares) for d in devices}
            exchanges = {device: legs * len(steps) for device, steps in planned.items()}
            self.local.weigh(devices, known)
            self.local.exchange.limit({d: (known[d], self.contracts[d].each) for d in devices})
            if not self.worker.prepare(round, attempt, devices, known, self.start.state):
                self.expect_running()
                continue
            self.stats.begin()
            self._held = known
            self.opening(round, attempt, known)
            downloads = self.start.downloads(round, devices)
            deadline = self.pace.deadline(opening)
            self.openings.add(round, devices)
            self.dispatch.open(round, attempt, exchanges, deadline, downloads, shares)
            self.event_log("opened", round=round, attempt=attempt, devices=list(devices))
            self.notify(
                f"round {round + 1}, attempt {attempt}: open for devices {', '.join(map(str, devices))}"
            )
            done = self.worker.serve(round, attempt, tuple(devices))
            if self.worker.lost:
                self.dispatch.close()
                self.expect_running()
                devices = self.select(round)
                self.start.again(devices)
                continue
            self.dispatch.wait_over()
            self.expect_running()
            with self.dispatch.locked() as session:
                verdict = session.verdict(self.dispatch.clock())
                made = {device: divmod(seat.next, legs) for device, seat in session.seats.items()}
                length = {device: seat.length(legs) for device, seat in session.seats.items()}
                late = session.at_work(self.dispatch.clock())
            came = self.deliveries.finite(self.dispatch.close())
            moments = {d: [Moment(round, step, length[d]) for step in planned[d]] for d in came}
            self._states = self.deliveries.judged(round, came, self.start.state, moments)
            finite = {device: came[device] for device in self._states}
            rows = sum(done.samples[device] for device in finite)
            # One that is refused has delivered, but most of what came must count.
            enough = len(came) >= quorum and 2 * len(finite) > len(came)
            lacking = ""
            if verdict is Verdict.COMPLETE and enough and rows:
                lacking = self.settle(round, attempt, done.samples)
                if not lacking:
                    finite = {device: came[device] for device in self._states}
                    break
            self.event_log("short", round=round, attempt=attempt, delivered=sorted(finite), quorum=quorum)
            short, advice = shortfall(round, attempt, came, finite, quorum, rows, lacking)
            missed += attempt not in self.orders.shortened
            if missed == 2:
                within = "" if lacking else f" within {deadline:g} s"
                raise ServeError(
                    f"{short}{within}, twice in a row; {advice}, and go on with sflam serve --resume"
                )
            self.notify(f"{short}; opened once more")
            devices = self.select(round)
            self.start.again(devices)
        self._results = finite
        self.deliveries.counted(tuple(finite))
        lost = sorted(set(devices) - finite.keys())
        if lost:
            self.notify(f"round {round + 1}: went on without devices {', '.join(map(str, lost))}")
        self.event_log("closed", round=round, attempt=attempt, devices=sorted(finite), left_out=lost or None)
        finish = {device: reading.finish_s for device, reading in self.stats.readings().items()}
        steps = {device: (made[device][0], exchanges[device] // legs) for device in late}
        self.pace.closed(finish, steps, self.stats.seconds)
        done.samples = {device: done.samples[device] for device in sorted(finite)}
        losses = done.device_losses
        if legs == 2:  # only the devices know their loss
            losses = {device: finite[device][1] * rows for device, rows in done.samples.items()}
        done.device_losses = {device: losses[device] for device in done.samples}
        done.losses = sum(done.device_losses.values())
        measured = measured_round(
            done,
            self.stats,
            self.contracts,
            self.local.devices.cuts,
            openings=opening,
            server_s=self.worker.busy,
            exchanges=exchanges,
            lost={device: made[device][0] for device in lost},
        )
        midway = tuple(device for device in lost if made[device][1])
        unheard = tuple(sorted(set(range(self.settings.devices)) - known.keys()))
        done.measured = replace(
            measured,
            passes=passes_of(self.worker.passes, planned),
            unheard=unheard,
            midway=midway,
            asked=tuple(self.openings.asked(round)),
            **(self.moving.recorded(round, sorted(done.samples)) if self.moving else {}),
            times=tuple(self.openings.asked(round).values()),
            predicted=of_those(*self._expected, sorted(done.samples)) if self._expected else None,
        )
        return done

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the sample-weighted average over the devices that delivered."""
        states, ranks, personal = self._states, self.local.ranks, self.local.personal
        for device in states:
            trunk = self.local.servers.trunk_of(device)
            personal.keep(device, trunk.segment.stack.read(trunk.copy_of(device)))
        sent = sum(size for _, _, size in self._results.values())
        self.local.adapters.follow(states, self.start.state, self.local.devices.names)
        ranks.keep_untouched(states, self.start.state, self.local.limited)
        chance = chances_of(self.settings, self._held)
        found = self.local.averaged(self.start.state, states, steps.samples, self._held, chance)
        return self.local.concluded(round, found, tuple(states), sent)

    def state(self) -> dict[str, Any]:
        """Return what a simulated fleet would, and the samples that devices reported.

        That is the trunk's optimiser state where it is kept; devices keep their own.
        """
        with self.dispatch.looked():
            kept = {"quarantine": state} if (state := self.deliveries.quarantine.state()) else {}
            return self.local.state() | {"reported": self.counted_samples()} | kept

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self.local.restore(state)
        self.recall(state)

    def recall(self, state: dict[str, Any]) -> None:
        """Put back what the server alone keeps of :meth:`state`: the local fleet has what is its own already."""
        self._reported = dict(state.get("reported", {}))
        self.deliveries.quarantine.restore(state.get("quarantine", {}))
        # Devices that were there try to come again all the while: they need no more than the patience.
        self.gathering.seconds = min(self.gathering.seconds, self.dispatch.session.patience)

    def expect_running(self) -> None:
        """Raise Stopped where the server was asked to stop; other jobs of the process may compute in between."""
        with self.dispatch.away():
            pass
        if self.dispatch.stopping:
            raise Stopped("the server was stopped")
