"""Devices at their own pace beside one trunk that serves all, in one process.

    u_(j+1) = u_j - lr P_j(sum_(k in S_j) G s_k grad_u F_k(w_k, u_j)),   w_k <- w_k - lr P_k(grad_w F_k(w_k, u_j))

u the trunk, S_j the devices of its j-th group of frames, w_k the half of device k, which began with some version of the
global adapters, P the optimisers, G s_k as in :mod:`sflam.learn.weighting`. The trunk learns from the frames that are
there, and only so: it is never averaged, and no device takes it back. A frame sees the trunk as it is in its group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from sflam.learn.exchange import Position
from sflam.learn.round import SERVER, make_step
from sflam.learn.server import Trunk
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.steps import Steps
from sflam.learn.weighting import ByDevice
from sflam.model.adapters import State
from sflam.seeds import derive


@dataclass(eq=False)
class CycleOutcome:
    """What one cycle of a device did.

    Attributes:
        steps: of it.
        received: bytes of the version that the device downloaded.
        trained: what came of its half, by name; empty while it is under way.
        sent: bytes in which it handed that on.
    """

    steps: Steps
    received: int
    trained: State = field(default_factory=dict)
    sent: int = 0

    def kept(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it."""
        steps = {item.name: getattr(self.steps, item.name) for item in fields(Steps)}
        return {"steps": steps, "received": self.received, "trained": self.trained, "sent": self.sent}

    @classmethod
    def of(cls, kept: Mapping[str, Any], like: Mapping[str, Tensor]) -> CycleOutcome:
        """Return what :meth:`kept` returned, its tensors of the kind of ``like``."""
        trained = {name: value.to(like[name]) for name, value in kept["trained"].items()}
        return cls(Steps(**kept["steps"]), kept["received"], trained, kept["sent"])


class PacedTrunk:
    """The cycles of devices that share a trunk.

    Args:
        halves: the fleet, of one server; its devices have all a seat.
    """

    def __init__(self, halves: LocalFleet) -> None:
        self.halves = halves
        self.outcomes: dict[tuple[int, int], CycleOutcome] = {}
        """(device, number) -> of cycles that are in no version yet."""
        self._made = 0
        """Groups so far."""
        self._rows = self.trunk.group_rows
        """Of a mixed group, as asked for."""
        self._drawn: dict[tuple[int, int], list[NDArray[Any]]] = {}

    @property
    def trunk(self) -> Trunk:
        """The one that serves all."""
        (found,) = self.halves.servers.trunks.values()
        return found

    def open(self, state: State) -> None:
        """Begin a version, whose trunk is the one that there is; ``learn.state = "reset"`` forgets its momenta."""
        every = range(len(self.halves.parts))
        self.halves.weigh(every, self.halves.counted_samples(0))
        weighting, trunk = self.trunk.weighting, self.trunk
        if trunk.one_by_one and isinstance(weighting, ByDevice):
            # as many steps as where all devices are there
            trunk.weighting = replace(weighting, groups=len(every))
        trunk.open()
        trunk.segment.stack.write(0, state)

    def begin(self, device: int, number: int, begun: State) -> None:
        """Let a device download a version for its cycle with a number; the others are in the middle of theirs."""
        devices, ranks = self.halves.devices, self.halves.ranks
        received, size = ranks.transfer(number, device, 0, begun, devices.names(device), self.halves.adapters)
        devices.open_one(device, received)
        self.outcomes[device, number] = CycleOutcome(Steps(samples={device: 0}), size)

    def batches(self, device: int, number: int) -> list[NDArray[Any]]:
        """Return the samples of each mini-batch of a cycle."""
        if (device, number) not in self._drawn:
            self._drawn[device, number] = self.halves.drawn(number, [device])[device]
        return self._drawn[device, number]

    def step(self, group: Sequence[tuple[int, int, int]]) -> None:
        """Make the local steps of a group of frames.

        Where all devices make the same one together, dropout and mixed groups are drawn as in a round.

        Args:
            group: device, number of its cycle, and step of each, in the order of the trunk's optimiser steps.
        """
        halves, seed = self.halves, self.halves.seed
        at = {device: Position(number, step, device) for device, number, step in group}
        now = {
            place.device: halves.examples.take(self.batches(place.device, place.round)[place.step])
            for place in at.values()
        }
        seeds = {d: derive(seed, "dropout", place.round, place.step, d) for d, place in at.items()}
        places = {(place.round, place.step) for place in at.values()}
        if len(places) == 1 and len(at) == len(halves.parts):
            seeds[SERVER] = derive(seed, "dropout", *places.pop(), SERVER)
        else:
            seeds[SERVER] = derive(seed, "trunk", self._made)
        # A mixed group has a row of every device; of some devices, it has as many rows.
        self.trunk.group_rows = self._rows or (0 if len(at) == len(halves.parts) else len(halves.parts))
        done = {d: self.outcomes[d, place.round].steps for d, place in at.items()}
        make_step(now, at, seeds, halves.devices, halves.servers, halves.exchange, done)
        self._made += 1

    def deliver(self, device: int, number: int, begun: State) -> None:
        """Take what a device trained of its half in a cycle that began with the version ``begun``."""
        halves, outcome = self.halves, self.outcomes[device, number]
        stack, rows = halves.devices.segment.stack, outcome.steps.samples[device]
        own, names = stack.named(stack.row(device)), halves.devices.names(device)
        found, outcome.sent = halves.ranks.upload(halves.adapters, number, device, rows, own, begun, names)
        outcome.trained = {name: value.clone() for name, value in found.items()}
        self._drawn.pop((device, number), None)

    def taken(self) -> State:
        """Return the trunk as it is, by name."""
        (cut,) = set(self.halves.devices.cuts)
        found = self.halves.servers.named(0, cut, self.halves.servers.row(0))
        return {name: value.clone() for name, value in found.items()}

    def state(self) -> dict[str, Any]:
        """Return what, beside the newest version, must survive a crash between two of them."""
        halves = self.halves
        found = {
            "made": self._made,
            "halves": {d: halves.devices.segment.stack.row(d) for d in range(len(halves.parts))},
            "outcomes": [[device, number, one.kept()] for (device, number), one in self.outcomes.items()],
        }
        if halves.learn.practice.state == "reset":  # else the fleet keeps them
            found |= {"devices": halves.devices.state(), "servers": halves.servers.state()}
        return found

    def restore(self, state: Mapping[str, Any], like: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` returned, its tensors of the kind of ``like``."""
        stack = self.halves.devices.segment.stack
        self._made = state["made"]
        for device, row in state["halves"].items():
            stack.row(int(device)).copy_(row)
        self.outcomes = {
            (device, number): CycleOutcome.of(kept, like) for device, number, kept in state["outcomes"]
        }
        if "devices" in state:
            self.halves.devices.restore(state["devices"])
            self.halves.servers.restore(state["servers"])
