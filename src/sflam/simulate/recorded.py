"""Rounds that were trained once, in place of training: a fleet that returns what a run's records hold. K devices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sflam.errors import RunError
from sflam.learn.fleet import FleetAround
from sflam.learn.steps import Average, Steps
from sflam.model.adapters import State
from sflam.plan import Placement
from sflam.records.charge import Charge
from sflam.records.history import RoundRecord
from sflam.simulate.cell_planner import CellPlanner
from sflam.simulate.edge_planner import EdgePlanner
from sflam.simulate.fleet import SimulatedFleet

Bodies = tuple[list[int], list[int]]
"""Bytes of all bodies that each participant of a round sent in its steps, and received."""


class RecordedFleet(FleetAround):
    """A fleet that trains nothing: its rounds have been trained. The wrapped one says which mini-batches they had."""

    def before(self, round: int, state: State) -> None:
        """Prepare nothing."""

    def place(self, placements: Sequence[Placement]) -> None:
        """Move nothing."""

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return no adapters."""
        return Average(state={}, error=None)

    def after(self, record: RoundRecord) -> RoundRecord:
        """Return the record."""
        return record


def charged_anew(fleet: SimulatedFleet, record: RoundRecord, known: dict[int, Bodies]) -> RoundRecord:
    """Return the record of a round with what it costs over the network of ``fleet``, planned and charged there.

    Args:
        fleet: around a :class:`RecordedFleet`.
        record: of the round.
        known: round -> its bodies, as far as they were counted; more are added.

    Raises:
        RunError: the plan there would have trained something else.
        AllocationError: no plan holds the limits.
    """
    assert record.charge is not None, "the round has no charge"
    fleet.before(record.round, {})
    chosen = fleet.select(record.round)
    expect_as_trained(fleet, chosen, record, record.charge)
    if record.round not in known and fleet.counts_all:
        known[record.round] = _bodies(fleet, record, record.charge)
    fleet.average(record.round, chosen, _steps(record, record.charge, known.get(record.round)))
    return fleet.after(record)


def expect_as_trained(
    fleet: SimulatedFleet, chosen: Sequence[int], record: RoundRecord, charge: Charge
) -> None:
    """Raise RunError where the plans in force are of other devices, cuts, bits or servers than were trained."""
    what, name = "", f"round {record.round + 1}"
    if tuple(chosen) != record.participants:
        gone = sorted(set(record.participants) - set(chosen))
        more = sorted(set(chosen) - set(record.participants))
        what = (
            f"leaves out device {gone[0]}, which trained"
            if gone
            else f"has device {more[0]}, which did not train"
        )
    else:
        placed = {item.device: item for turn in fleet.in_force for item in turn.placements}
        zeros = (0,) * len(chosen)
        crossing = not fleet.planner.once
        for index, device in enumerate(record.participants):
            mine = placed[device]
            bits = mine.bits if crossing and not mine.alone else (0, 0)
            for kind, planned, trained in (
                ("blocks", mine.cut, charge.cuts[index]),
                ("bits up", bits[0], charge.bits_up[index]),
                ("bits down", bits[1], charge.bits_down[index]),
                ("as its server", mine.server, (charge.servers or zeros)[index]),
                ("as model.tuned", mine.tuned, (charge.tuned or zeros)[index]),
            ):
                if planned != trained and not what:
                    what = f"gives device {device} {planned} {kind} where {trained} was trained"
    if what:
        raise RunError(
            f"{name}: the plan {what}; what was trained can only be charged anew where plans agree on who trains what: "
            "change other settings, or train with sflam simulate"
        )


def _steps(record: RoundRecord, charge: Charge, bodies: Bodies | None) -> Steps:
    """Return what the round's local steps did."""
    who = record.participants
    up, down = bodies or ((0,) * len(who),) * 2  # else charged by payloads
    losses = zip(who, record.device_loss, record.device_samples, strict=True)
    return Steps(
        samples=dict(zip(who, record.device_samples, strict=True)),
        device_losses={device: loss * rows for device, loss, rows in losses if loss is not None},
        payload_up=dict(zip(who, charge.payload_up, strict=True)),
        payload_down=dict(zip(who, charge.payload_down, strict=True)),
        sent=dict(zip(who, up, strict=True)),
        received=dict(zip(who, down, strict=True)),
    )


def _bodies(fleet: SimulatedFleet, record: RoundRecord, charge: Charge) -> Bodies:
    """Return the bodies of a round.

    Raises:
        RunError: they do not add up to what the record says.
    """
    if charge.sent:
        return list(charge.sent), list(charge.received)
    if fleet.planner.once:  # charged by what is trained
        return [0] * len(record.participants), [0] * len(record.participants)
    up, down, planner = dict[int, int](), dict[int, int](), fleet.planner
    assert isinstance(planner, CellPlanner | EdgePlanner)
    for turn in fleet.in_force:
        bits = planner.bodies(fleet.network, turn)
        for book, each in zip((up, down), bits, strict=True):
            book |= dict(zip(turn.devices, np.rint(each / 8).astype(int).tolist(), strict=True))
    if (found := (sum(up.values()), sum(down.values()))) != (record.bytes_up, record.bytes_down):
        raise RunError(
            f"round {record.round + 1}: the bodies of its steps are {found[0]} bytes up and {found[1]} down, but "
            f"{record.bytes_up} and {record.bytes_down} were recorded; the run is of another version, train it again"
        )
    return [up[device] for device in record.participants], [down[device] for device in record.participants]
