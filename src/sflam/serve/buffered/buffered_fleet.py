"""Real devices at their own pace: every M of their updates make the next version (``learn.sync = "buffered"``).

    a device comes           it is given the newest version, and makes its steps with the server's copy for it
    it hands in its update   it is in the buffer, or too far behind and thrown away; the device begins anew at once
    the buffer is full       the next version is made (:mod:`sflam.learn.staleness`)

Devices that stay away hold no other up: their cycles stay open, and one that comes back goes on where it was, or begins
anew. What was in the buffer is lost with the server: after its restart all devices begin with the newest version, and
with the draws of the cycles that are in no version yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from sflam.learn.screening import Trained
from sflam.learn.settings.schedule import Moment
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.staleness import Update, aggregated, too_stale, weight_of
from sflam.learn.steps import Average, Steps
from sflam.model.adapters import State
from sflam.records.buffer import Buffer
from sflam.records.history import RoundRecord
from sflam.serve.buffered.paced_dispatch import PacedDispatch
from sflam.serve.buffered.paced_session import Handed
from sflam.serve.buffered.paced_worker import PacedWorker
from sflam.serve.dispatch import Request
from sflam.serve.fleet import RemoteFleet
from sflam.serve.round_measure import measured_round
from sflam.serve.trunk_worker import OpenRound, Worker


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedCycle:
    """What a device does once; see :class:`sflam.learn.versions.Cycled`.

    Attributes:
        device: whose.
        number: of the device's own cycles, from 0.
        version: that it was sent.
        begun: s on the clock of the run.
        exchanges: that it makes.
        sent: bytes of the version it was sent.
        at: its round, as the trunk serves it.
    """

    device: int
    number: int
    version: int
    begun: float
    exchanges: int
    sent: int
    at: OpenRound


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedUpdate:
    """What came of a cycle.

    Attributes:
        cycle: it.
        arrived: s on the clock of the run.
        steps: what was done in it.
        size: bytes of the body of what the device trained.
        sides: what was trained on either side of the cut.
    """

    cycle: ServedCycle
    arrived: float
    steps: Steps
    size: int
    sides: tuple[Trained, ...]


class BufferedRemote(RemoteFleet):
    """Devices over a network, at their own pace; see :class:`sflam.serve.fleet.RemoteFleet`.

    Args:
        local: the same job's fleet in one process.
        paced: where devices arrive.
    """

    worker_kind = PacedWorker

    def __init__(self, local: LocalFleet, paced: PacedDispatch, *args: Any, **options: Any) -> None:
        super().__init__(local, paced, *args, **options)
        assert isinstance(self.worker, Worker), "trunk servers of their own are refused"
        self.paced, self.trunks = paced, self.worker
        self.size = local.learn.buffer or local.settings.devices
        self.versions: dict[int, State] = {}
        """Those that cycles under way began with, and the newest."""
        self.under_way: dict[int, ServedCycle] = {}
        self.numbers = [0] * local.settings.devices
        """Per device, the cycle that it makes next."""
        self.buffer: list[ServedUpdate] = []
        """What came, and is in no version yet."""
        self.stale: list[ServedUpdate] = []
        """What came too far behind since the version before."""
        self.distrusted: list[ServedUpdate] = []
        """What was refused since then, as no steps can have made it, or it is far from the others'."""
        self._counts: dict[int, tuple[State, ...]] = {}
        """Place in the buffer -> what counts of it, side by side."""
        self._began, self._before = paced.clock(), 0.0
        self._shown = ""

    @property
    def now(self) -> float:
        """Seconds on the clock of the run."""
        return self._before + self.paced.clock() - self._began

    def learn(self, records: Sequence[RoundRecord]) -> None:
        """Go on behind the versions of a run that is gone on with: no cycle in one of them is made again."""
        for record in records:
            self._before += record.seconds
            found = record.measured.buffer if record.measured else None
            if found is None:
                continue
            devices, numbers = found.devices + found.refused, found.numbers + found.refused_numbers
            for device, number in zip(devices, numbers, strict=True):
                self.numbers[device] = max(self.numbers[device], number + 1)

    def select(self, round: int) -> tuple[int, ...]:
        """Serve devices until the updates of a version have come; return who sent them."""
        self.trunks.busy, self.stale, self.distrusted = 0.0, [], []
        self.paced.paced.may_begin = lambda: self._may_begin(round)
        self.paced.begin_version(round)
        self.stats.begin()
        self.event_log("opened", round=round, devices=sorted(self.under_way) or None)
        while not self._full(round):
            self.expect_running()
            self.paced.paced.filled = len(self.buffer), self.size
            if (handed := self.paced.take()) is not None:
                self._take(round, handed)
                continue
            for device in self.paced.ready():
                self._begin(round, device)
            self._show(round)
            rounds = {device: one.at for device, one in self.under_way.items()}
            for version, arrivals in self._passes(self.paced.collect()):
                self.local.rule.begin(self.versions[version])
                self.trunks.answer(arrivals, rounds)
        return tuple(sorted({one.cycle.device for one in self.buffer}))

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Return the bytes of the versions that the devices of the updates were sent."""
        return sum(one.cycle.sent for one in (*self.buffer, *self._lost))

    @property
    def _lost(self) -> list[ServedUpdate]:
        """What came since the version before, and is not learnt from."""
        return [*self.stale, *self.distrusted]

    def before(self, round: int, state: State) -> None:
        """Keep the version ``state``, with which devices begin from now on."""
        self.local.before(round, state)
        self.versions[round] = state

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Return the steps of the updates."""
        done = Steps()
        for one in self.buffer:
            done.add(one.steps)
        for one in self._lost:  # their bytes crossed the network
            done.add(replace(one.steps, samples={}, device_losses={}, losses=0.0))
        made = [one.cycle for one in self.buffer]
        exchanges = {d: sum(cycle.exchanges for cycle in made if cycle.device == d) for d in devices}
        measured = measured_round(
            done,
            self.stats,
            self.contracts,
            self.local.devices.cuts,
            openings=1,
            server_s=self.trunks.busy,
            exchanges=exchanges,
            lost={},
        )
        known = self.counted_samples()
        unheard = tuple(device for device in range(self.settings.devices) if device not in known)
        done.measured = replace(measured, unheard=unheard, buffer=self._kept(round))
        return done

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the next version."""
        updates = [
            Update(
                device=one.cycle.device,
                staleness=round - one.cycle.version,
                rows=one.steps.samples[one.cycle.device],
                begun=self.versions[one.cycle.version],
                trained=self.deliveries.whole(
                    one.cycle.device, self._counts[place], self.versions[one.cycle.version]
                ),
            )
            for place, one in enumerate(self.buffer)
        ]
        found = aggregated(self.local.averaging, self.versions[round], updates, self.counted_samples())
        sent = sum(one.size for one in (*self.buffer, *self._lost))
        self.deliveries.counted(devices)
        self.event_log(
            "closed",
            round=round,
            devices=[one.cycle.device for one in self.buffer],
            staleness=[round - one.cycle.version for one in self.buffer],
        )
        self.buffer = []
        needed = {cycle.version for cycle in self.under_way.values()}
        self.versions = {version: state for version, state in self.versions.items() if version in needed}
        return Average(found.state, found.error, sent)

    def _passes(self, arrivals: Sequence[Request]) -> Iterator[tuple[int, list[Request]]]:
        """Yield a version and those of the arrivals that make a step together, which began with it.

        Where a device's rule looks back at its beginning, only such make one; else all do, whatever they began with.
        """
        apart, acts = self.local.learn.canonical, self.local.rule.acts

        def alike(arrival: Request) -> tuple[int, int]:
            version = self.under_way[arrival.device].version
            return (version if acts or apart else 0, arrival.device if apart else 0)

        for _, group in groupby(sorted(arrivals, key=alike), alike):
            together = list(group)
            yield self.under_way[together[0].device].version, together

    def _full(self, round: int) -> bool:
        """Whether the buffer holds M updates that may count; those that may not are thrown away."""
        if len(self.buffer) < self.size:
            return False
        of = {place: one.cycle.device for place, one in enumerate(self.buffer)}
        self._counts = self.deliveries.screened(
            round,
            {place: one.sides for place, one in enumerate(self.buffer)},
            {place: self._moments(one.cycle) for place, one in enumerate(self.buffer)},
            of,
        )
        if len(self._counts) == len(self.buffer):
            return True
        self.distrusted += [one for place, one in enumerate(self.buffer) if place not in self._counts]
        self.buffer = [one for place, one in enumerate(self.buffer) if place in self._counts]
        return False

    def _moments(self, cycle: ServedCycle) -> list[Moment]:
        return [Moment(cycle.number, step, cycle.at.length) for step in range(cycle.at.length)]

    def _take(self, round: int, handed: Handed) -> None:
        """Put what a device handed in into the buffer, or throw it away where it is too far behind."""
        device = handed.device
        cycle, result = self.under_way.pop(device), handed.result
        self.numbers[device] = cycle.number + 1
        if not self.deliveries.finite({device: result}):
            self.notify(f"version {round + 1}: what device {device} trained is not finite, and is not taken")
            self.event_log("distrusted", device=device, round=round, reason="it holds NaN or infinity")
            return
        steps = cycle.at.done
        if self.contracts[device].legs == 2:  # only the device knows its loss
            lost = result[1] * steps.samples[device]
            steps = replace(steps, losses=lost, device_losses={device: lost})
        found = ServedUpdate(
            cycle=cycle,
            arrived=self._before + handed.now - self._began,
            steps=steps,
            size=result[2],
            sides=self.deliveries.sides(device, result, self.versions[cycle.version]),
        )
        behind, bound = round - cycle.version, self.local.learn.staleness
        if not too_stale(bound, behind):
            self.buffer.append(found)
            return
        self.stale.append(found)
        self.notify(
            f"version {round + 1}: the update of device {device} is thrown away: it is {behind} versions behind, and "
            f"learn.staleness is {bound}"
        )
        self.event_log("stale", device=device, round=round, staleness=behind, bound=bound)

    def _begin(self, round: int, device: int) -> None:
        """Give a device the newest version, for the cycle that it has not ended yet."""
        number, state, attempt = self.numbers[device], self.versions[round], self._attempt()
        with self.dispatch.looked() as session:
            samples, legs = session.samples[device], session.legs
        steps = self.parts.steps(device, samples, {})
        self.local.servers.trunk_of(device).open_one(device, state)
        body = self.start.bodies(number, [device], state)[device]
        done = Steps(samples={device: 0}, device_losses={device: 0.0})
        self.under_way[device] = ServedCycle(
            device=device,
            number=number,
            version=round,
            begun=self.now,
            exchanges=legs * len(steps),
            sent=len(body),
            at=OpenRound(number, attempt, len(steps), done),
        )
        self.paced.begin(device, number, attempt, legs * len(steps), body)
        self.event_log("began", device=device, round=number, attempt=attempt, version=round)

    def _may_begin(self, round: int) -> Callable[[int], bool]:
        """Return whether a device may begin a cycle, as far as orders and refusals go."""
        if self.orders.held(round):
            return lambda device: False
        out = self._sitting_out(round)
        return lambda device: device not in out

    def _show(self, round: int) -> None:
        """Show the user of the server what holds the run up, once."""
        with self.dispatch.looked() as session:
            present = session.present(self.dispatch.clock())
        reason = self.orders.held(round)
        if not reason and not present:
            reason = f"waiting for devices; {len(self.buffer)} of {self.size} updates are here"
        if reason and reason != self._shown:
            self.notify(f"version {round + 1}: {reason}")
            self.event_log("held" if present else "waiting", round=round, reason=reason)
        self._shown = reason

    def _kept(self, round: int) -> Buffer:
        """Return the updates of a version as its record keeps them."""
        cycles, stale = [one.cycle for one in self.buffer], [one.cycle for one in self.stale]
        behind = tuple(round - cycle.version for cycle in cycles)
        return Buffer(
            devices=tuple(cycle.device for cycle in cycles),
            staleness=behind,
            weights=tuple(map(weight_of, behind)),
            begun=tuple(cycle.begun for cycle in cycles),
            arrived=tuple(one.arrived for one in self.buffer),
            refused=tuple(cycle.device for cycle in stale),
            refused_staleness=tuple(round - cycle.version for cycle in stale),
            numbers=tuple(cycle.number for cycle in cycles),
            refused_numbers=tuple(cycle.number for cycle in stale),
        )
