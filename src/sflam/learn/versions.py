"""Buffered rounds in one process: updates, each trained from the version that its device downloaded, make the next one.

    1. a virtual clock, or the history of another run, has which updates came, and in which order
    2. each is trained from its own version, with the draws of its device's own cycle
    3. they make the next version (:mod:`sflam.learn.staleness`)

What a device trains hangs on the version that it downloaded and on its own draws alone, so it is trained when it comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

from sflam.errors import RunError
from sflam.learn.fleet import FleetAround
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.staleness import Update, aggregated
from sflam.learn.steps import Average, Steps
from sflam.model.adapters import State
from sflam.records.buffer import Buffer
from sflam.records.history import RoundRecord


class Cycled(Protocol):
    """What a device did once: downloaded a version, made its local steps, and handed on what it trained."""

    @property
    def device(self) -> int:
        """Whose it is."""

    @property
    def number(self) -> int:
        """Which of the device's own cycles, from 0: its draws are those of the round with this number."""

    @property
    def version(self) -> int:
        """The version that it downloaded."""


@dataclass(frozen=True)
class CycleKey:
    """A cycle by its name alone; see :class:`Cycled`."""

    device: int
    number: int
    version: int


class VersionedFleet(FleetAround):
    """A fleet in one process whose versions are made of updates that began from several.

    A subclass says in :meth:`select` what came, in ``counted`` and ``refused``.

    Args:
        halves: the fleet that trains.
    """

    together = True
    """Whether updates alike in version and number make their steps together."""

    def __init__(self, halves: LocalFleet) -> None:
        super().__init__(halves)
        self.halves = halves
        self.versions: dict[int, State] = {}
        """Those that updates to come began from."""
        self.counted: Sequence[Cycled] = ()
        """The updates of the next version, in the order in which they came."""
        self.refused: Sequence[Cycled] = ()
        """Those that were thrown away."""
        self._updates: list[Update] = []
        self._steps = Steps()
        self._sent = 0

    def before(self, round: int, state: State) -> None:
        """Keep the version ``state``, from which devices begin."""
        self.inner.before(round, state)
        self.versions[round] = state

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Train what came, each from the version it began with; return the bytes of these versions."""
        self._updates, self._steps, self._sent = [], Steps(), 0
        received, trained = 0, dict[tuple[int, int], Update]()
        every = [(cycle, True) for cycle in self.counted] + [(one, False) for one in self.refused]

        def alike(item: tuple[Cycled, bool]) -> tuple[int, ...]:
            cycle, counts = item
            return cycle.version, cycle.number, counts, 0 if self.together else cycle.device

        for (version, number, counts, _), group in groupby(sorted(every, key=alike), alike):
            who = sorted(cycle.device for cycle, _ in group)
            begun = self.versions[version]
            received += self.halves.download(number, who, begun)
            steps = self.halves.local_steps(number, who)
            ends, sent = self.halves.collected(number, who, steps, self.halves.rows(who))
            self._sent += sent
            for device in who if counts else ():
                trained[device, number] = Update(
                    device=device,
                    staleness=round - version,
                    rows=steps.samples[device],
                    begun=begun,
                    trained={name: value.clone() for name, value in ends[device].items()},
                )
            self._steps.add(steps if counts else replace(steps, samples={}, device_losses={}, losses=0.0))
        self._updates = [trained[cycle.device, cycle.number] for cycle in self.counted]
        return received

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Return the steps of what came."""
        return self._steps

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the next version."""
        held = {device: len(part) for device, part in enumerate(self.halves.parts)}
        found = aggregated(self.halves.averaging, self.versions[round], self._updates, held)
        return Average(found.state, found.error, self._sent)


class RecordedVersions(VersionedFleet):
    """A fleet in one process whose versions are made of the updates that those of another run were made of.

    Each is trained alone, as a served canonical run trains it: both have the same adapters, bit for bit.

    Args:
        halves: the fleet that trains.
        buffers: version -> its updates.

    Raises:
        RunError: one trunk serves all devices.
    """

    together = False

    def __init__(self, halves: LocalFleet, buffers: Mapping[int, Buffer]) -> None:
        super().__init__(halves)
        if halves.servers.shared:
            raise RunError(
                'learn.trunk = "shared": a trunk that all share goes on from step to step, and not from version to '
                "version; simulate the run again, which gives the same adapters"
            )
        self.buffers = buffers

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices of the updates of a version."""
        if round not in self.buffers:
            raise RunError(f"no record says of which updates version {round + 1} is made; run fewer rounds")
        found = self.buffers[round]
        self.counted = _keys(round, found.devices, found.numbers, found.staleness)
        self.refused = _keys(round, found.refused, found.refused_numbers, found.refused_staleness)
        return tuple(sorted(set(found.devices)))


def buffers_of(records: Sequence[RoundRecord]) -> dict[int, Buffer]:
    """Return version -> its updates, from the history of a buffered run, simulated or served."""
    found = {record.round: record.measured or record.charge for record in records}
    return {round: kept.buffer for round, kept in found.items() if kept and kept.buffer}


def _keys(
    round: int, devices: Sequence[int], numbers: Sequence[int], staleness: Sequence[int]
) -> list[CycleKey]:
    return [
        CycleKey(device, number, round - behind)
        for device, number, behind in zip(devices, numbers, staleness, strict=True)
    ]
