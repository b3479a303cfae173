"""Devices at their own pace on the virtual clock: who delivers when, and what each has spent until then.

A cycle is what a device does once: it downloads a version, makes its local steps, and hands on what it trained. Its
length comes from the functions that charge synchronous rounds, so the order of events does, too. Instants that differ
by rounding are one; devices that deliver at one instant come in the order of their indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from sflam.network.network import Floats
from sflam.simulate.clock import RoundCost
from sflam.simulate.closing import ROUNDING, steps_share, until

COLUMNS = (
    "compute_s",
    "up_s",
    "server_s",
    "down_s",
    "adapters",
    "fetch_s",
    "compute_j",
    "transmit_j",
    "adapter_j",
    "receive_j",
    "fetch_j",
)
"""Of a :class:`RoundCost`, what a cycle keeps of its device."""


class PaidCycle(Protocol):
    """What a device does once, as its seconds and joules are charged; see :class:`Cycle`."""

    @property
    def device(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def begun(self) -> float: ...
    @property
    def cost(self) -> Mapping[str, float]: ...
    @property
    def steps_s(self) -> float: ...
    @property
    def ends(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """What a device does once.

    Attributes:
        device: whose.
        number: of the device's own cycles, from 0.
        version: that it downloaded.
        begun: s on the clock of the run.
        cost: ``COLUMNS`` of it, and ``static_w`` and ``server_j``.
        paid: s of it that are charged already.
    """

    device: int
    number: int
    version: int
    begun: float
    cost: Mapping[str, float]
    paid: float = 0.0

    @property
    def steps_s(self) -> float:
        """Seconds of its local steps."""
        return sum(self.cost[name] for name in ("server_s", "down_s", "compute_s", "up_s"))

    @property
    def seconds(self) -> float:
        """Until it delivers."""
        return self.steps_s + self.cost["adapters"]

    @property
    def ends(self) -> float:
        """When it delivers, s on the clock of the run."""
        return self.begun + self.seconds

    def kept(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it."""
        return asdict(self)


def cycle_of(cost: RoundCost, place: int, *, static_w: float, server_j: float, **who: Any) -> Cycle:
    """Return the cycle of the device at ``place`` of a :class:`RoundCost`; ``who`` are its other attributes."""
    each = {name: np.broadcast_to(getattr(cost, name), cost.compute_s.shape) for name in COLUMNS}
    own = {name: float(values[place]) for name, values in each.items()}
    return Cycle(cost=own | {"static_w": static_w, "server_j": server_j}, **who)


def first(under_way: Iterable[Cycle]) -> list[Cycle]:
    """Return the cycles that end next, all at one instant, by device."""
    every = list(under_way)
    soon = min(cycle.ends for cycle in every)
    return sorted(
        (cycle for cycle in every if cycle.ends <= soon * (1 + ROUNDING)), key=lambda cycle: cycle.device
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Spent:
    """What cycles spent between two instants, J [n]."""

    compute_j: Floats
    transmit_j: Floats
    adapter_j: Floats
    receive_j: Floats
    idle_j: Floats
    server_j: Floats

    @property
    def device_j(self) -> Floats:
        """What each battery paid."""
        found: Floats = self.compute_j + self.transmit_j + self.adapter_j + self.receive_j + self.idle_j
        return found


def spent(cycles: Sequence[Cycle], now: float) -> Spent:
    """Return what cycles have spent up to ``now`` s on the clock beyond what is charged already."""
    before, after = (
        _until(cycles, np.array(stops, float))
        for stops in (
            [cycle.paid for cycle in cycles],
            [min(now - cycle.begun, cycle.seconds) for cycle in cycles],
        )
    )
    return Spent(**{name: after[name] - before[name] for name in after})


def paid(cycle: Cycle, now: float) -> Cycle:
    """Return a cycle that is charged up to ``now`` s on the clock."""
    return replace(cycle, paid=min(now - cycle.begun, cycle.seconds))


def _until(cycles: Sequence[Cycle], stops: Floats) -> dict[str, Floats]:
    """Return J [n] of each kind until each cycle's own ``stops`` s."""
    columns = {name: np.array([cycle.cost[name] for cycle in cycles]) for name in COLUMNS}
    static, server = (np.array([cycle.cost[name] for cycle in cycles]) for name in ("static_w", "server_j"))
    nothing = np.zeros(len(cycles))
    rest: dict[str, Any] = columns | {"server_j": 0.0, "counted": nothing, "idle_j": nothing, "inside": True}
    whole = RoundCost(**rest)
    cost = until(whole, stops, static, stops, float(stops.max(initial=0.0)))
    names = ("compute_j", "transmit_j", "adapter_j", "receive_j", "idle_j")
    found = {name: np.asarray(getattr(cost, name), float) for name in names}
    return found | {"server_j": server * steps_share(whole, stops)}
