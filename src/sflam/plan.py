"""A plan: the second of the two types that the data path and the control path share."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALL_LOCAL = -1
"""``DevicePlan.server`` of a user that trains every layer."""
WHOLE = 1 - 1e-9
"""From this share of a channel's time on a device has all of it, up to rounding."""


class Status(enum.StrEnum):
    """Whether a plan is feasible and certified optimal."""

    OPTIMAL = "optimal"  # the certified gap is within the solver's tolerance
    FEASIBLE = "feasible"  # all limits hold; see the gap for how far from the bound it may be
    INFEASIBLE = "infeasible"  # no plan can hold the limits; ``advice`` says by how much and what to change


@dataclass(frozen=True, kw_only=True)
class DevicePlan:
    """What one device gets, and the predicted costs of its round. SI units.

    Attributes:
        cut: blocks on the device.
        bits: bits of an activation value on the way up.
        bits_down: bits of a gradient value on the way down.
        bandwidth: Hz that it sends over: its part of the band, or the whole channel where devices share its time.
        power: transmit power, radiated, W.
        clock: Hz.
        server: index of its server; ``ALL_LOCAL`` for none.
        server_clock: clock share at its server, Hz; 0 where servers do not share clocks.
        subchannels: how many, or 0 where bandwidth is continuous.
        compute_s: seconds of computing on the device.
        transmit_s: seconds of transmitting up.
        compute_j: joules of computing on the device.
        transmit_j: joules of transmitting up, what the radio's circuits draw meanwhile included.
        receive_j: joules of receiving.
        idle_j: joules drawn over the whole round at any clock, waiting included; 0 among several servers, where
            ``compute_j`` holds those of computing.
        tuned: ``model.tuned`` of the device; 0 where the plan leaves it open.
        payload_bits: bits that a round sends up.
        rate_up: bit/s of sending them, over all of its time.
        airtime: share of the channel's time in which it may send; 1 where it has a part of the band.
    """

    cut: int
    bits: int
    bandwidth: float
    power: float
    clock: float
    compute_s: float
    transmit_s: float
    compute_j: float
    transmit_j: float
    bits_down: int = 0
    server: int = 0
    server_clock: float = 0.0
    subchannels: int = 0
    idle_j: float = 0.0
    receive_j: float = 0.0
    tuned: int = 0
    payload_bits: float = 0.0
    rate_up: float = 0.0
    airtime: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What one device trains, where, and with how many bits: a plan after every default is resolved. SI units.

    Attributes:
        device: its number.
        cut: blocks on the device.
        bits_up: bits of an activation value.
        bits_down: bits of a gradient value.
        server: index of its server; ``ALL_LOCAL`` for a device that trains the whole model.
        tuned: how many of the first blocks it tunes; of the last ones where negative; 0 for all that carry adapters.
        bandwidth: Hz; 0 where no plan gives any, and so are the next two.
        power: transmit power, W.
        clock: Hz.
        airtime: share of the time in which it may send over that bandwidth.
    """

    device: int
    cut: int
    bits_up: int
    bits_down: int
    server: int = 0
    tuned: int = 0
    bandwidth: float = 0.0
    power: float = 0.0
    clock: float = 0.0
    airtime: float = 1.0

    @property
    def alone(self) -> bool:
        """Whether the device trains the whole model."""
        return self.server == ALL_LOCAL

    @property
    def bits(self) -> tuple[int, int]:
        """Bits up and down."""
        return self.bits_up, self.bits_down


def overlay(placements: Sequence[Placement], changes: Sequence[Placement]) -> tuple[Placement, ...]:
    """Return ``placements`` with those of the devices in ``changes`` replaced, in the order of devices."""
    after = {placement.device: placement for placement in (*placements, *changes)}
    return tuple(after[device] for device in sorted(after))


class DevicePlans(Sequence[DevicePlan]):
    """The plans of K devices as a structure of arrays: ``plans.power`` is [K], ``plans[3]`` is one device's plan.

    Columns have the names of ``DevicePlan``'s fields; a single number holds for every device.
    """

    def __init__(self, count: int, **columns: ArrayLike) -> None:
        names = {field.name for field in fields(DevicePlan)}
        assert set(columns) <= names, set(columns) - names
        self._columns: dict[str, NDArray[Any]] = {}
        for each in fields(DevicePlan):
            value = columns.get(each.name, each.default)
            assert value is not MISSING, each.name
            kind = np.int64 if each.type == "int" else np.float64
            self._columns[each.name] = np.broadcast_to(np.asarray(value, kind), (count,))
        self._count = count

    def __getattr__(self, name: str) -> NDArray[Any]:
        columns = self.__dict__.get("_columns", {})
        if name not in columns:
            raise AttributeError(name)
        column: NDArray[Any] = columns[name]
        return column

    @property
    def device_j(self) -> NDArray[np.float64]:
        """[K] joules that a round takes from each device."""
        total: NDArray[np.float64] = self._columns["compute_j"] + self._columns["transmit_j"]
        total = total + self._columns["idle_j"] + self._columns["receive_j"]
        return total

    @property
    def shares_time(self) -> bool:
        """Whether devices have shares of a channel's time, not parts of its band."""
        return bool((self._columns["airtime"] < WHOLE).any())

    def change(self, **columns: ArrayLike) -> DevicePlans:
        """Return the plans with other columns."""
        return DevicePlans(self._count, **(self._columns | columns))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> DevicePlan: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[DevicePlan]: ...

    def __getitem__(self, index: int | slice) -> DevicePlan | Sequence[DevicePlan]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self._count)))
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return DevicePlan(**{name: column[index].item() for name, column in self._columns.items()})


NO_DEVICES = DevicePlans(
    0,
    **dict.fromkeys(("cut", "bits", "bandwidth", "power", "clock"), 0),
    **dict.fromkeys(("compute_s", "transmit_s", "compute_j", "transmit_j"), 0.0),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShadowPrices:
    """What one more unit of each limit takes off the objective, at the margin: 0 where a limit does not bind.

    Attributes:
        bandwidth: per Hz of the band.
        airtime: per whole of the channel's time, where devices share it: a percent is worth a hundredth; else 0.
        deadline: per s.
        power: [K] per W of each device's highest transmit power.
        radio_cap: [K] per J of each device's cap on transmission.
        compute_cap: [K] per J of that on computing; at a fixed clock, which the cap lowers, it may be below 0.
        energy_cap: [K] per J of that on both, a battery's rest included.
    """

    bandwidth: float
    deadline: float
    power: NDArray[np.float64]
    radio_cap: NDArray[np.float64]
    compute_cap: NDArray[np.float64]
    energy_cap: NDArray[np.float64]
    airtime: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists; names carry what a unit is."""
        return {
            "bandwidth_per_hz": _plain(self.bandwidth),
            "airtime_per_whole": _plain(self.airtime),
            "deadline_per_s": _plain(self.deadline),
            "power_per_w": [_plain(value) for value in self.power],
            **{
                f"{name}_per_j": [_plain(value) for value in getattr(self, name)]
                for name in ("radio_cap", "compute_cap", "energy_cap")
            },
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeShadowPrices:
    """The same among several servers, where every user keeps its server and split.

    Attributes:
        bandwidth: [M] per Hz of each server's band.
        clock: [M] per Hz of each server's clock.
        power: [K] per W of each user's highest transmit power.
    """

    bandwidth: NDArray[np.float64]
    clock: NDArray[np.float64]
    power: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists; names carry what a unit is."""
        names = {"bandwidth": "bandwidth_per_hz", "clock": "clock_per_hz", "power": "power_per_w"}
        return {key: [_plain(value) for value in getattr(self, name)] for name, key in names.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A decision for every device, what it costs, and how far it can be from the best.

    Attributes:
        method: the allocator's name.
        devices: one per device, in order; empty when infeasible.
        latency: seconds of a round, T.
        energy: joules of a round, all devices, as the objective counts them unweighted.
        objective: what was minimised; inf when infeasible.
        lower_bound: no plan has a smaller objective; -inf where the method has none.
        status: what the plan promises.
        advice: sentences for the user: what is infeasible and by how much, what was rounded.
        history: the objective after each iteration; one value for direct methods.
        solve_s: seconds the solver took.
        shadow_prices: what limits are worth; None where the method has no multipliers.
    """

    method: str
    devices: DevicePlans
    latency: float
    energy: float
    objective: float
    lower_bound: float
    status: Status
    advice: tuple[str, ...] = ()
    history: tuple[float, ...] = ()
    solve_s: float = 0.0
    shadow_prices: ShadowPrices | EdgeShadowPrices | None = None

    @property
    def gap(self) -> float:
        """Relative distance of the objective from its lower bound; inf without one."""
        if not (self.lower_bound > 0 and math.isfinite(self.objective)):
            return float("inf")
        return max(0.0, self.objective / self.lower_bound - 1.0)

    def placements(self, devices: Sequence[int], bits_down: int) -> tuple[Placement, ...]:
        """Return where the plan puts ``devices``, one per row; ``bits_down`` where the plan leaves them open."""
        return tuple(
            Placement(
                device=device,
                cut=item.cut,
                bits_up=item.bits,
                bits_down=item.bits_down or bits_down,
                server=item.server,
                tuned=item.tuned,
                bandwidth=item.bandwidth,
                power=item.power,
                clock=item.clock,
                airtime=item.airtime,
            )
            for device, item in zip(devices, self.devices, strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain numbers, strings and lists, for JSON; a number that is not finite becomes None."""
        head = {
            "method": self.method,
            "objective": _plain(self.objective),
            "lower_bound": _plain(self.lower_bound),
            "gap": _plain(self.gap),
            "latency_s": _plain(self.latency),
            "energy_j": _plain(self.energy),
            "status": self.status.value,
            "solve_s": self.solve_s,
            "advice": list(self.advice),
            "history": [_plain(value) for value in self.history],
            "shadow_prices": None if self.shadow_prices is None else self.shadow_prices.to_dict(),
        }
        return head | {"devices": [asdict(device) for device in self.devices]}


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
