"""Devices and servers of a network as a structure of arrays: made from a scenario, a file or a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sflam.errors import AllocationError

Floats = NDArray[np.float64]
RADIO = ("amplifier_efficiency", "circuit_power", "receive_power", "full_power")
WAY_DOWN = {"down_rate": np.inf, "exchange_s": 0.0}
MACHINE = ("max_power", "max_clock", "flops_per_cycle", "kappa", "static_power", "memory", "energy_weight")
PER_DEVICE: tuple[str, ...] = (*MACHINE, *RADIO, *WAY_DOWN)
PER_SERVER = ("bandwidth", "server_clock", "server_flops_per_cycle", "server_kappa")


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """K devices around M servers. SI units; gains are linear power ratios, fading and path loss included.

    Attributes:
        gain: [M, K] channel power gain of every device at every server.
        max_power: [K] W, radiated.
        max_clock: [K] Hz.
        flops_per_cycle: [K] FLOP per clock cycle, all cores together.
        kappa: [K] W s^3: a computing device draws ``kappa f^3``.
        static_power: [K] W drawn at any clock, over the whole round; among several servers, while computing.
        memory: [K] bytes that training may use; inf for no limit.
        energy_weight: [K] w_k of the objective.
        noise: N0 W/Hz, the SNR gap included.
        bandwidth: [M] Hz.
        server_clock: [M] Hz.
        server_flops_per_cycle: [M].
        server_kappa: [M] W s^3.
        amplifier_efficiency: [K] radiated over drawn power of the amplifier, above 0 up to 1.
        circuit_power: [K] W that the rest of the radio draws while it sends.
        receive_power: [K] W that the radio draws while it receives.
        full_power: [K] 1 where a device sends at full power or not at all, as one whose rate was measured does, not its
            gain; only counted where devices share time.
        down_rate: [K] bit/s of the way down, as it was measured; inf where it was not.
        exchange_s: [K] s that an exchange of a step takes beside its bytes and the server.
        airtime: share of the time of each server's channel that its devices share: each sends over the whole band, in
            its own slots. 0 where they share the band itself.
        names: [K] what to call the devices.
        positions: [K, 2] m, or None where unknown.
        server_positions: [M, 2] m, or None where unknown.

    Raises:
        AllocationError: an array of another shape.
    """

    gain: Floats
    max_power: Floats
    max_clock: Floats
    flops_per_cycle: Floats
    kappa: Floats
    static_power: Floats
    memory: Floats
    energy_weight: Floats
    noise: float
    bandwidth: Floats
    server_clock: Floats
    server_flops_per_cycle: Floats
    server_kappa: Floats
    amplifier_efficiency: Floats = field(default_factory=lambda: np.ones(()))
    circuit_power: Floats = field(default_factory=lambda: np.zeros(()))
    receive_power: Floats = field(default_factory=lambda: np.zeros(()))
    full_power: Floats = field(default_factory=lambda: np.zeros(()))
    down_rate: Floats = field(default_factory=lambda: np.full((), np.inf))
    exchange_s: Floats = field(default_factory=lambda: np.zeros(()))
    airtime: float = 0.0
    names: tuple[str, ...] = ()
    positions: Floats | None = None
    server_positions: Floats | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.gain) != 2:
            raise AllocationError(
                f"gain has shape {list(np.shape(self.gain))}; it must be [servers, devices]"
            )
        servers, devices = self.gain.shape
        for name in (*RADIO, *WAY_DOWN):
            if np.ndim(getattr(self, name)) == 0:
                every = np.broadcast_to(np.asarray(getattr(self, name), np.float64), (devices,))
                object.__setattr__(self, name, every)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(PER_DEVICE, (devices,))
        shapes |= dict.fromkeys(PER_SERVER, (servers,))
        optional = {"names": (devices,), "positions": (devices, 2), "server_positions": (servers, 2)}
        unknown = [name for name in optional if getattr(self, name) is None or not len(getattr(self, name))]
        shapes |= {name: shape for name, shape in optional.items() if name not in unknown}
        for name, shape in shapes.items():
            found = np.shape(getattr(self, name))
            if found != shape:
                raise AllocationError(
                    f"{name} has shape {list(found)}; it must be {list(shape)} for the {servers} servers and {devices} "
                    "devices of gain"
                )

    @property
    def shared_band(self) -> Floats:
        """[M] Hz that devices share: the band, or its equivalent in slots of the channel's time."""
        return self.bandwidth * self.airtime if self.airtime else self.bandwidth

    def only(self, devices: Sequence[int]) -> Network:
        """Return the network of some of its devices, in the order given."""
        index = np.asarray(devices, np.int64)
        each = {name: getattr(self, name)[index] for name in PER_DEVICE}
        return replace(
            self,
            **each,
            gain=self.gain[:, index],
            names=tuple(self.names[device] for device in devices) if self.names else (),
            positions=None if self.positions is None else self.positions[index],
        )

    def __len__(self) -> int:
        return int(self.gain.shape[1])
