"""A fleet whose devices are shared out over ranks: rank 0 leads it, the others follow its orders.

An order goes to all ranks before each of them does its part. What ranks exchange within the local steps is
the trunk's (:mod:`sflam.learn.world.joint_trunk`); at the end of a round all that was trained goes to rank 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from torch import Tensor

from sflam.errors import SflamError
from sflam.learn.fleet import FleetAround
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.steps import Average, Steps
from sflam.learn.world.carried import borrow, lent, returned, taken_back
from sflam.learn.world.world import World
from sflam.model.adapters import State
from sflam.plan import Placement

ORDER = "order"
"""The key of an order's name."""


class RankedFleet(FleetAround):
    """Rank 0's fleet: its own part of the devices, and what came back of the others'.

    Args:
        inner: of this rank.
        world: the ranks.
    """

    inner: LocalFleet

    def __init__(self, inner: LocalFleet, world: World) -> None:
        super().__init__(inner)
        self.world = world
        self._rows: dict[int, tuple[Tensor, Tensor]] = {}
        self._lost: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """The wrapped fleet's: the number of ranks changes nothing about a run."""
        return self.inner.name

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash: the wrapped fleet's, as one rank has it."""
        return self.inner.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned, on any number of ranks."""
        self.inner.restore(state)

    def place(self, placements: Sequence[Placement]) -> None:
        """Follow a plan from now on, on every rank."""
        self.world.first({ORDER: "place", "placements": [_plain(item) for item in placements]})
        self.inner.place(placements)

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Start the devices at their ranks from the global adapters; return the bytes sent."""
        others = set(devices) - set(self.inner.mine(round, devices))
        how = {"state": state, "lent": lent(self.inner, devices, others)}
        self.world.first({ORDER: "download", "round": round, "devices": list(devices), **how})
        return sum(self.world.collect(self.inner.download(round, devices, state)))

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Run every local step of the devices' round, at their ranks."""
        self.world.first({ORDER: "local_steps", "round": round, "devices": list(devices)})
        mine = self.inner.mine(round, devices)
        try:
            done = self.inner.local_steps(round, devices).of(mine)
            found = self.world.collect({})[1:]
        except SflamError as error:
            self._lost = getattr(error, "devices", ())
            raise
        rows = self.inner.rows(mine)
        for each in found:
            rows |= taken_back(self.inner, each)
            done.add(Steps(**each["steps"]))
        self._rows = rows
        done.samples = {device: done.samples[device] for device in devices if device in done.samples}
        return done

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the average of what the devices of all ranks trained, in the order of the devices."""
        rows, self._rows = self._rows, {}
        return self.inner.averaged_over(round, devices, steps, rows)

    def diverged(self) -> list[int]:
        """Return the devices of all ranks that hold NaN or infinity."""
        if self._lost is not None:  # a rank ended, and left word of its own
            return sorted({*self.inner.diverged(), *self._lost})
        self.world.first({ORDER: "diverged"})
        return sorted({device for own in self.world.collect(self.inner.diverged()) for device in own})


class Follower:
    """What a rank other than 0 does with its own part of the devices.

    Args:
        fleet: of this rank.
        world: the ranks.
    """

    def __init__(self, fleet: LocalFleet, world: World) -> None:
        self.fleet, self.world = fleet, world

    def place(self, placements: Sequence[dict[str, Any]]) -> None:
        """Follow a plan."""
        self.fleet.place([Placement(**item) for item in placements])

    def download(self, round: int, devices: Sequence[int], state: State, lent: dict[str, Any]) -> None:
        """Start a round."""
        borrow(self.fleet, lent)
        self.world.collect(self.fleet.download(round, devices, state))

    def local_steps(self, round: int, devices: Sequence[int]) -> None:
        """Run its devices' local steps."""
        mine = self.fleet.mine(round, devices)
        try:
            done = self.fleet.local_steps(round, devices).of(mine)
        except SflamError as error:
            error.devices = self.fleet.diverged()  # type: ignore[attr-defined]
            raise
        steps = {item.name: getattr(done, item.name) for item in fields(done)}
        self.world.collect(returned(self.fleet, mine) | {"steps": steps})

    def diverged(self) -> None:
        """Name its devices that hold NaN or infinity."""
        self.world.collect(self.fleet.diverged())


def _plain(placement: Placement) -> dict[str, Any]:
    """Return a placement without the number types of NumPy, which a plan may have."""
    return {
        name: value.item() if hasattr(value, "item") else value for name, value in asdict(placement).items()
    }
