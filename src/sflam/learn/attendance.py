"""Who came to the rounds of a run: with the same record, a fleet in one process computes what a served one computed.

A simulation whose devices fail or are late gives that record itself, before the round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from sflam.learn.round import Passes
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.steps import Average, Steps
from sflam.records.history import RoundRecord


@dataclass(frozen=True, kw_only=True)
class Attendance:
    """Who came to one round.

    Attributes:
        delivered: devices whose adapters are in its average.
        left: devices that began it and are not.
        passes: the trunk's steps in order: the number of each, then its devices; empty where each came to its own.
        unheard: devices that had not reported their samples yet.
        made: device of those that left -> the steps it had made.
        midway: those of them that stayed away between the two exchanges of the step after these.
    """

    delivered: tuple[int, ...]
    left: tuple[int, ...] = ()
    passes: Passes = ()
    unheard: tuple[int, ...] = ()
    made: Mapping[int, int] = field(default_factory=dict)
    midway: tuple[int, ...] = ()


def attendance_of(records: Sequence[RoundRecord]) -> dict[int, Attendance]:
    """Return round -> who came, from the history of a served run."""
    return {
        record.round: Attendance(
            delivered=record.participants,
            left=record.measured.left_out,
            passes=tuple((one.step, *one.devices) for one in record.measured.passes),
            unheard=record.measured.unheard,
            made=dict(zip(record.measured.left_out, record.measured.left_steps, strict=True)),
            midway=record.measured.midway,
        )
        for record in records
        if record.measured is not None
    }


def _with_rows(own: Sequence[NDArray[Any]]) -> list[int]:
    """Return the steps in which a device has rows."""
    return [step for step, indices in enumerate(own) if len(indices)]


class AttendedFleet(LocalFleet):
    """A fleet in one process whose rounds have just those who came to another's; see :class:`LocalFleet`.

    A device that keeps its optimiser's state is taken to have had every answer that the server gave it.

    Attributes:
        attendance: round -> who came; everyone to rounds it lacks.
    """

    attendance: Mapping[int, Attendance] = {}

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices of a round."""
        came = self.attendance.get(round)
        return super().select(round) if came is None else tuple(sorted((*came.delivered, *came.left)))

    def passes(self, round: int) -> Passes:
        """Return who takes which step of a round, in order."""
        return self.attendance[round].passes if round in self.attendance else ()

    def silent(self, round: int) -> Mapping[int, int]:
        """Return device -> the step in the middle of which it stayed away."""
        came = self.attendance.get(round)
        if came is None or not came.midway:
            return {}
        drawn = super().drawn(round, came.midway if self.sampling == "local" else self.select(round))
        return {device: _with_rows(drawn[device])[came.made[device]] for device in came.midway}

    def drawn(self, round: int, devices: Sequence[int]) -> dict[int, list[NDArray[Any]]]:
        """Return the samples of each mini-batch; of a device that left, those that it came with."""
        drawn = super().drawn(round, devices)
        came = self.attendance.get(round)
        for device in came.left if came and not came.passes else ():
            begun = came.made[device] + (device in came.midway) if came else 0
            steps = _with_rows(drawn[device])[:begun]
            drawn[device] = [own if step in steps else own[:0] for step, own in enumerate(drawn[device])]
        return drawn

    def counted_samples(self, round: int) -> dict[int, int]:
        """Return device -> n_k of those that had reported them."""
        unheard = self.attendance[round].unheard if round in self.attendance else ()
        return {d: count for d, count in super().counted_samples(round).items() if d not in unheard}

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Run the local steps of those who came; what was lost on the way is in no average."""
        steps = super().local_steps(round, devices)
        if round in self.attendance:
            steps.samples = {device: steps.samples[device] for device in self.attendance[round].delivered}
            steps.device_losses = {d: loss for d, loss in steps.device_losses.items() if d in steps.samples}
            steps.losses = sum(steps.device_losses.values())
        return steps

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the average over those who delivered."""
        return super().average(round, tuple(steps.samples), steps)
