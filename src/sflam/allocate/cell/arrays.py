"""One cell as arrays: the input of the solvers of problem A (2.1). Where devices share time, see ``airtime``."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.curves import LARGEST, above_circuits, growth, inverse_growth, inverse_psi, psi
from sflam.network.network import Floats

Index = NDArray[np.bool_] | NDArray[np.intp]
PARTS = 16  # of a cell that are remembered


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """K devices that share one band. SI units; a whole round, local steps included.

    Attributes:
        latency_weight: 1/s, lam + sum W P0: what a second of the round costs, with what all devices idle in it.
        weight: [K] W_k, 1/J; 0 counts no energy of that device.
        payload: [K] nats up, a_k.
        noise: [K] N0 / (eta_k g_k), J: what a nat at infinite bandwidth takes from the amplifier's supply.
        max_power: [K] W that the amplifier draws at full power, p_max / eta.
        cycles: [K] clock cycles whose speed is chosen, C_k; 0 with a fixed clock.
        max_clock: [K] Hz; any positive number with a fixed clock.
        kappa: [K] W s^3.
        idle_power: [K] W drawn over the whole round, waiting included.
        circuit_power: [K] W drawn while sending, beside the amplifier's, P_c.
        amplifier_efficiency: [K] eta, which turns drawn power into radiated.
        delay: [K] s that the plan does not change, c_k.
        full_power: [K] 1 where a device sends at full power or not at all; only where they share time.
        radio_cap: [K] J of transmission a round; inf for none.
        energy_cap: [K] J of transmission and computing together; inf for none.
        bandwidth: Hz to share, B.
        deadline: s for T, the constant part taken off; inf for none.
        constant: s of that part, T0, for messages.
    """

    latency_weight: float
    weight: Floats
    payload: Floats
    noise: Floats
    max_power: Floats
    cycles: Floats
    max_clock: Floats
    kappa: Floats
    idle_power: Floats
    circuit_power: Floats
    amplifier_efficiency: Floats
    full_power: Floats
    delay: Floats
    radio_cap: Floats
    energy_cap: Floats
    bandwidth: float
    deadline: float
    constant: float = 0.0

    def __len__(self) -> int:
        return len(self.payload)

    @cached_property
    def least_compute(self) -> Floats:
        """[K] s at full speed, C / f_max."""
        return self.cycles / self.max_clock

    @cached_property
    def busy(self) -> Floats:
        """[K] s that no plan can use for transmission: fixed delays and computing at full speed."""
        return self.delay + self.least_compute

    @cached_property
    def snr_bandwidth(self) -> Floats:
        """[K] Hz at which full power meets as much noise: p_max / G; nat/s at infinite bandwidth."""
        return self.max_power / self.noise

    @cached_property
    def max_efficiency(self) -> Floats:
        """[K] nat/s/Hz at which one upload uses the radio's energy cap (2.7); inf without a cap, 0 if impossible."""
        capped = np.isfinite(self.radio_cap)
        x = np.full(len(self), np.inf)
        with np.errstate(over="ignore"):
            x[capped] = inverse_growth(self.radio_cap[capped] / (self.noise[capped] * self.payload[capped]))
        return x

    @cached_property
    def circuits(self) -> bool:
        """Whether sending for longer takes more energy at some point, as no amplifier alone does."""
        return bool(((self.circuit_power > 0) | (self.full_power > 0)).any())

    @cached_property
    def least_energy(self) -> Floats:
        """[K] J that sending takes at least, over unlimited bandwidth at full power: G a (1 + P_c / p_max)."""
        least: Floats = self.noise * self.payload * (1 + self.circuit_power / self.max_power)
        return least

    def soonest(self, payload: Floats) -> Floats:
        """Return the s in which payloads [..., K] could be sent at full power over all the bandwidth there can be."""
        return payload / self.snr_bandwidth

    def least_bandwidth(self, transmit: Floats) -> Floats:
        """Return [K] Hz with which a device can be done within ``transmit`` s, by its power and its radio's cap."""
        t = np.minimum(transmit, self.longest_transmit)
        x = np.minimum(inverse_growth(self.snr_bandwidth * t / self.payload), self.efficiency_within(t))
        with np.errstate(divide="ignore"):
            found: Floats = self.payload / (x * t)
        return found

    def spread(
        self, bandwidth: Floats, transmit: Floats, efficiency: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return x, s and J of sending, [K] each, of devices that get more bandwidth than x nat/s/Hz asks for."""
        x = self.payload / (bandwidth * transmit)
        return x, transmit, self.noise * self.payload * np.expm1(x) / x + self.circuit_power * transmit

    def split(self, bandwidth: Floats) -> tuple[Floats, Floats]:
        """Return the Hz that devices send over, and the share of the time in which they may, [K] each."""
        return bandwidth, np.ones(len(self))

    def power(self, bandwidth: Floats, transmit: Floats) -> Floats:
        """Return [K] W that the amplifier draws while it sends, with a bandwidth, within ``transmit`` s."""
        drawn: Floats = self.noise * bandwidth * np.expm1(self.payload / (bandwidth * transmit))
        return drawn

    def listening(self, bandwidth: Floats) -> Floats | float:
        """Return [K] s of ``transmit`` in which a device receives: none, where the way down is a delay."""
        return 0.0

    def at_bandwidth(self, bandwidth: Floats) -> Cell:
        """Return the cell whose devices share a band, and do the same with this bandwidth."""
        return self

    def sending(self, efficiency: Floats, transmit: Floats) -> Floats:
        """Return [K] J of sending at x within ``transmit`` s: G a growth(x) + P_c t."""
        joules: Floats = self.noise * self.payload * growth(efficiency)
        return joules + self.circuit_power * transmit if self.circuits else joules

    def efficiency_within(self, transmit: Floats) -> Floats:
        """Return [K] the x at which sending for ``transmit`` s uses the radio's cap; 0 where its circuits alone do."""
        if not self.circuits:
            return self.max_efficiency
        with np.errstate(over="ignore", invalid="ignore"):
            ratio = (self.radio_cap - self.circuit_power * transmit) / (self.noise * self.payload)
        return inverse_growth(np.where(np.isfinite(self.radio_cap), ratio, np.inf))

    @cached_property
    def corner(self) -> Floats:
        """[K] s of sending at full power that use the radio's cap; inf without one."""
        with np.errstate(over="ignore"):
            return self.radio_cap / (self.max_power + self.circuit_power)

    @cached_property
    def longest_transmit(self) -> Floats:
        """[K] s of sending within the radio's cap over the least bandwidth: beyond, circuits take what is left.

        On the cap, x = ln(E / (G a)) at G b psi(x) = P_c; where that takes more than full power, the corner.
        """
        held = np.isfinite(self.radio_cap) & (self.circuit_power > 0)
        longest = np.full(len(self), np.inf)
        if held.any():
            lead = self.noise[held] * self.payload[held]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                x = np.minimum(np.log(np.maximum(self.radio_cap[held] / lead, 1.0)), LARGEST)
                ends = np.where(x > 0, lead * psi(x) / (x * self.circuit_power[held]), 0.0)
            longest[held] = np.maximum(ends, self.corner[held])
        return longest

    def frugal_efficiency(self, bandwidth: Floats) -> Floats:
        """Return [K] the x of least energy at a bandwidth, G b psi(x) = P_c; 0 without circuits, which take it up.

        inf for a device that knows full power alone.
        """
        x = np.zeros(len(self))
        some = np.flatnonzero(self.circuit_power > 0)
        if some.size:
            x[some] = inverse_psi(self.circuit_power[some] / (self.noise[some] * bandwidth[some]))
        x[self.full_power > 0] = np.inf
        return x

    def efficiency_at(self, bandwidth: Floats) -> Floats:
        """Return [K] the largest x at a bandwidth within the radio's cap; 0 where none is."""
        if not self.circuits:
            return self.max_efficiency
        x = np.full(len(self), np.inf)
        held = np.flatnonzero(np.isfinite(self.radio_cap))
        if held.size:
            lead = self.noise[held] * self.payload[held]
            ratio = self.radio_cap[held] / lead
            extra = self.circuit_power[held] / (self.noise[held] * bandwidth[held])
            x[held] = above_circuits(ratio, extra)
        return x

    def compute_energy(self, compute: Floats) -> Floats:
        """Return [K] J of computing for ``compute`` [K] s: kappa C^3 / tau^2."""
        tau = np.where(self.cycles > 0, compute, 1.0)
        energy = self.kappa * self.cycles**3 / (tau * tau)
        return np.where(self.cycles > 0, energy, 0.0)

    def slow_enough(self, joules: Floats) -> Floats:
        """Return [K] s in which computing takes ``joules`` [K]; inf where there are none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            tau = self.cycles * np.sqrt(self.kappa * self.cycles / joules)
        return np.where(joules > 0, tau, np.inf)

    def slowing_gain(self, compute: Floats) -> Floats:
        """Return [K] W: energy saved per second of slower computing, 2 kappa C^3 / tau^3; 0 with nothing to do."""
        tau = np.where(self.cycles > 0, compute, 1.0)
        gain = 2 * self.kappa * (self.cycles / tau) ** 3
        return np.where(self.cycles > 0, gain, 0.0)

    @cached_property
    def full_speed_gain(self) -> Floats:
        """[K] W: energy saved per second of slower computing, at full speed."""
        return self.slowing_gain(self.least_compute)

    def left(self, time: float | Floats) -> Floats:
        """Return [K] J that the caps on a device's whole energy leave for its work in a round of ``time`` s."""
        return self.energy_cap - self.idle_power * (time + self.constant)

    @cached_property
    def waits(self) -> bool:
        """Whether a longer round leaves less of some cap."""
        return bool((np.isfinite(self.energy_cap) & (self.idle_power > 0)).any())

    def at_weight(self, weight: Floats) -> Self:
        """Return the cell with other weights of energy, and what is computed once, which holds no weight."""
        _ = self.max_efficiency, self.busy, self.snr_bandwidth
        _ = self.longest_transmit, self.circuits
        other = copy(self)
        other.__dict__.pop("_parts", None)  # which hold weights
        object.__setattr__(other, "weight", weight)
        return other

    def take(self, index: Index) -> Self:
        """Return the cell of the devices at ``index`` (mask or numbers); bandwidth and prices stay."""
        arrays = {name: getattr(self, name)[index] for name in arrays_of(type(self))}
        return replace(self, **arrays)

    def grown_to(self, growths: Floats) -> Floats:
        """Return x [n] with growth(x) = ``growths`` [n], what full power allows; not to be changed.

        That hangs on the round's time alone, at which a search for the price of bandwidth asks for it many times.
        """
        key = growths.tobytes()
        if key not in self._grown:
            if len(self._grown) >= PARTS:
                self._grown.clear()
            self._grown[key] = inverse_growth(growths)
        return self._grown[key]

    @cached_property
    def _grown(self) -> dict[bytes, Floats]:
        return {}

    @cached_property
    def _parts(self) -> dict[bytes, Self]:
        return {}

    def part(self, index: NDArray[np.intp]) -> Self:
        """Return the cell of the devices at ``index``, in order: the same one each time it is asked for them.

        Prices move less than the devices that they slow down, so that a search asks for few parts, many times.
        """
        if len(index) == len(self):
            return self
        key = index.tobytes()
        if key not in self._parts:
            if len(self._parts) >= PARTS:
                self._parts.clear()
            self._parts[key] = self.take(index)
        return self._parts[key]


def arrays_of(kind: type[Cell]) -> tuple[str, ...]:
    """Return the names of what a kind of cell has one value per device of."""
    return tuple(each.name for each in fields(kind) if each.type == "Floats")


def fastest_clock(cycles: Floats, max_clock: Floats, kappa: Floats, cap: Floats) -> Floats:
    """Return the fastest clock [K], Hz, at which computing stays within ``cap`` J; 0 where none does (2.7)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        limit = np.nan_to_num(np.sqrt(np.maximum(cap, 0.0) / (kappa * cycles)))  # kappa f^2 C = cap
    # the root may lie a rounding error above the cap
    return np.where(kappa * max_clock**2 * cycles > cap, limit * (1 - 1e-14), max_clock)
