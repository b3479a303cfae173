"""Devices that share the time of one channel and not its band: problem A (2.1) with slots, and their best response.

A device with share s of the time sends over the whole band B in its own slots, and receives in them. With b = s B,
u the Hz s of the channel that it sends with, x = a / u nat/s/Hz, and D the Hz s that it receives with,

    b t = u + D,   x <= ln(1 + p_max / (G B)),   E_tx = G u (e^x - 1) + (P_c / B) u

so that a share changes time and not joules, and sum b <= B as with a band. At prices

    psi(x) = mu / (W G t) + P_c / (G B)  within its limits,  b = (a / x + D) / t,  time is worth mu b / t, always.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.arrays import Cell, arrays_of
from sflam.allocate.cell.best_response import Response
from sflam.allocate.curves import TINY, above_circuits, growth, inverse_psi, psi
from sflam.allocate.roots import bisect
from sflam.network.network import Floats, Network

STEPS = 60  # of Newton
DISTINCT = 1e-3  # of c: nearer to the x of least energy, a difference of psi(x) from c is rounding
SETTLED = 1e-9  # step in ln x that is the last: the next would be below rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class AirtimeCell(Cell):
    """K devices that share the time of one channel; bandwidths are b = s B. ``transmit`` is both ways.

    Attributes:
        channel: [K] Hz of the channel, B.
        down: [K] Hz s that a device receives with, D.
    """

    channel: Floats
    down: Floats

    @cached_property
    def fed(self) -> Floats:
        """[K] P_c / (G B): psi(x) of the least energy of a nat."""
        return self.circuit_power / (self.noise * self.channel)

    @cached_property
    def full_efficiency(self) -> Floats:
        """[K] x at full power."""
        return np.log1p(self.max_power / (self.noise * self.channel))

    @cached_property
    def max_efficiency(self) -> Floats:
        """[K] x at which sending uses the radio's cap; inf without one, 0 if impossible."""
        x = np.full(len(self), np.inf)
        held = np.flatnonzero(np.isfinite(self.radio_cap))
        if held.size:
            ratio = self.radio_cap[held] / (self.noise * self.payload)[held]
            x[held] = above_circuits(ratio, self.fed[held])
        return x

    @cached_property
    def top(self) -> Floats:
        """[K] the largest x that power and the radio's cap allow."""
        return np.minimum(self.full_efficiency, self.max_efficiency)

    @cached_property
    def least_energy(self) -> Floats:
        """[K] J that sending takes at least: G a (e^x - 1 + c) / x at psi(x) = c = P_c / (G B), or at full power."""
        return least_energy(
            self.noise, self.payload, self.max_power, self.circuit_power, self.channel, self.full_power
        )

    def within(self, efficiency: Floats) -> Floats:
        """Return [K] x held within the limits."""
        return np.where(self.full_power > 0, self.top, np.minimum(efficiency, self.top))

    def efficiency_within(self, transmit: Floats) -> Floats:
        """Return [K] the x at which sending uses the radio's cap: at any time the same."""
        return self.max_efficiency

    def airtime(self, efficiency: Floats) -> Floats:
        """Return [K] b t, the Hz s of the channel that a device takes both ways."""
        with np.errstate(divide="ignore"):
            taken: Floats = self.payload / efficiency + self.down
        return taken

    def soonest(self, payload: Floats) -> Floats:
        """Return the s in which payloads [..., K] could be sent at full power in all the time there is."""
        return (payload / self.full_efficiency + self.down) / self.bandwidth

    def least_bandwidth(self, transmit: Floats) -> Floats:
        """Return [K] Hz with which a device can be done within ``transmit`` s, by its power and its radio's cap."""
        return self.airtime(self.top) / transmit

    def spread(
        self, bandwidth: Floats, transmit: Floats, efficiency: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return x, s and J of sending, [K] each: of devices that get a larger share than x asks for, done earlier."""
        return (
            efficiency,
            self.airtime(efficiency) / bandwidth,
            self.sending(efficiency, transmit),
        )

    def split(self, bandwidth: Floats) -> tuple[Floats, Floats]:
        """Return the Hz that devices send over, the whole band, and their shares of the time, [K] each."""
        return self.channel, bandwidth / self.channel

    def power(self, bandwidth: Floats, transmit: Floats) -> Floats:
        """Return [K] W that the amplifier draws while it sends in its slots, done both ways within ``transmit`` s."""
        used = bandwidth * transmit - self.down
        drawn = self.noise * self.channel * np.expm1(self.payload / np.maximum(used, TINY))
        return np.where(self.full_power > 0, self.max_power, drawn)

    def listening(self, bandwidth: Floats) -> Floats | float:
        """Return [K] s of ``transmit`` in which a device receives."""
        with np.errstate(divide="ignore"):
            seconds: Floats = self.down / bandwidth
        return seconds

    def at_bandwidth(self, bandwidth: Floats) -> Cell:
        """Return the cell whose devices share a band, and do the same with this bandwidth: powers are averages over
        all the time, of which slots are a share b / B, and what comes down is a delay."""
        share = bandwidth / self.channel
        columns = {name: getattr(self, name) for name in arrays_of(Cell)} | {
            "max_power": self.max_power * share,
            "circuit_power": self.circuit_power * share,
            "delay": self.delay + self.listening(bandwidth),
        }
        return Cell(
            **columns,
            latency_weight=self.latency_weight,
            bandwidth=self.bandwidth,
            deadline=self.deadline,
            constant=self.constant,
        )

    def sending(self, efficiency: Floats, transmit: Floats) -> Floats:
        """Return [K] J of sending at x: G a growth(x) + P_c a / (B x)."""
        lead = self.noise * self.payload
        with np.errstate(divide="ignore", invalid="ignore"):
            fed = np.where(self.circuit_power > 0, lead * self.fed / efficiency, 0.0)
        joules: Floats = lead * growth(efficiency) + fed
        return joules

    def at_weight(self, weight: Floats) -> Self:
        """Return the cell with other weights of energy, and what is computed once, which holds no weight."""
        _ = self.fed, self.top
        return super().at_weight(weight)

    def frugal(self) -> AirtimeCell:
        """Return the cell whose devices all send at the x of least energy."""
        x = self.within(frugal_efficiency(self.fed))
        drawn = self.noise * self.channel * np.expm1(x)
        return replace(self, max_power=drawn, full_power=np.ones(len(self)))


def kind_of(network: Network) -> type[Cell]:
    """Return the kind of cell that what devices share makes."""
    return AirtimeCell if network.airtime else Cell


def cell_of(
    columns: dict[str, Floats], network: Network, server: int, latency_weight: float, constant: float = 0.0
) -> Cell:
    """Return columns of any shape as a cell of a server's kind, without a deadline."""
    band = float(network.shared_band[server])
    arrays: dict[str, Any] = columns
    kind = kind_of(network)
    return kind(**arrays, latency_weight=latency_weight, bandwidth=band, deadline=np.inf, constant=constant)


def slots(delay: Floats, heard: Floats, channel: float) -> dict[str, Floats]:
    """Return columns of a cell whose way down takes ``heard`` s of the channel, [K], and not of the ``delay``, s."""
    every = np.full(len(delay), channel)
    return {"delay": np.maximum(delay - heard, 0.0), "channel": every, "down": heard * channel}


def frugal_efficiency(fed: Floats) -> Floats:
    """Return x of the least energy, psi(x) = P_c / (G B), [K]; 0 without circuits."""
    x = np.zeros(fed.shape)
    some = fed > 0
    x[some] = inverse_psi(fed[some])
    return x


def least_energy(
    noise: Floats, payload: Floats, drawn: Floats, circuit: Floats, channel: float | Floats, full: Floats
) -> Floats:
    """Return [K] J that sending takes at least in slots of a channel: at psi(x) = P_c / (G B), or at full power.

    Args:
        noise: [K] G, J.
        payload: [K] nats.
        drawn: [K] W that amplifiers draw at full power.
        circuit: [K] W of circuits.
        channel: Hz of the channel.
        full: [K] 1 where a device knows full power alone.
    """
    fed, top = circuit / (noise * channel), np.log1p(drawn / (noise * channel))
    x = np.where(full > 0, top, np.minimum(frugal_efficiency(fed), top))
    with np.errstate(divide="ignore", invalid="ignore"):
        joules: Floats = noise * payload * (growth(x) + np.where(fed > 0, fed / x, 0.0))
    return joules


def respond(cell: AirtimeCell, time: float | Floats, price: float, near: Response | None = None) -> Response:
    """Return each device's best answer to round time T (s) and price mu > 0 of b (1/Hz), as for a shared band."""
    transmit = time - cell.busy
    with np.errstate(divide="ignore", over="ignore"):
        value = price / (cell.weight * cell.noise * transmit) + cell.fed
        first = inverse_psi(value, None if near is None else near.first)
    x = cell.within(first)
    bandwidth = cell.airtime(x) / transmit
    none = np.zeros(len(cell), bool)
    answer = Response(first, x, bandwidth, transmit, cell.least_compute, price * bandwidth / transmit, none)
    if cell.cycles.any():
        slow = np.flatnonzero(cell.weight * cell.full_speed_gain > answer.time_price)
        if slow.size:
            _slow_down(cell.take(slow), answer, (time - cell.delay)[slow], price, slow, near)
    return answer


def _slow_down(
    part: AirtimeCell,
    answer: Response,
    span: Floats,
    price: float,
    slow: NDArray[np.intp],
    near: Response | None,
) -> None:
    """Slow the clocks of the devices ``slow``, which are ``part``, until a second of computing saves what one of their
    slots is worth: mu b / t = W 2 kappa f^3 within ``span`` s [n]."""
    start = answer.first[slow] if near is None else np.maximum(near.efficiency[slow], answer.first[slow])
    x, t = _balanced(part, span, price, start)
    limited = (x >= part.top) | (part.full_power > 0)
    for some, seek in ((limited, _at_limit), (np.isnan(x) & ~limited, _slower)):  # Newton did not settle
        if (rest := np.flatnonzero(some)).size:
            t[rest], x[rest] = seek(part.take(rest), span[rest], price, answer.transmit[slow[rest]])
    answer.efficiency[slow], answer.transmit[slow] = x, t
    answer.bandwidth[slow] = part.airtime(x) / t
    answer.time_price[slow] = price * answer.bandwidth[slow] / t
    answer.compute = answer.compute.copy()
    answer.compute[slow] = np.maximum(span - t, part.least_compute)


def _balanced(part: AirtimeCell, span: Floats, price: float, start: Floats) -> tuple[Floats, Floats]:
    """Return x, without its limits, and t [n] at which both phases take ``span`` s, by Newton in ln x; NaN where it did
    not settle, or x is too near that of least energy.

    With t = mu / (W G (psi(x) - c)) a slot is worth zeta = mu (a / x + D) / t^2, and computing takes C (2 W kappa /
    zeta)^(1/3). At ``start`` the sum is too long, or near.
    """
    lead, load = price / (part.weight * part.noise), part.cycles * np.cbrt(2 * part.weight * part.kappa)
    x, settled = start.copy(), np.zeros(len(part), bool)
    with np.errstate(all="ignore"):
        for _ in range(STEPS):
            value = psi(x) - part.fed
            t, sent = lead / value, part.payload / x
            tau = load / np.cbrt(price * (sent + part.down) / (t * t))
            gain = x * x * np.exp(x) / value  # -d ln t / d ln x
            fall = t * gain + tau * (2 * gain - sent / (sent + part.down)) / 3
            step = (t + tau - span) / fall
            x = x * np.exp(np.clip(step, -0.7, 0.7))
            settled = (np.abs(step) < SETTLED) & (value > DISTINCT * part.fed)
            if settled.all():
                break
        t = lead / (psi(x) - part.fed)
    return np.where(settled, x, np.nan), np.where(settled, t, np.nan)


def _at_limit(part: AirtimeCell, span: Floats, price: float, longest: Floats) -> tuple[Floats, Floats]:
    """Return t, at most ``longest``, and x [n] at which a slot is worth what a slower clock saves, x at its limit.

    3 ln(span - t) - 2 ln t is concave in ln t and falls, so that Newton falls to its root from ``longest``.
    """
    goal = np.log(part.weight * 2 * part.kappa * part.cycles**3 / (price * part.airtime(part.top)))
    t = longest.copy()
    for _ in range(STEPS):
        left = np.maximum(span - t, part.least_compute)  # of a long round, a short computing time is rounding
        step = (3 * np.log(left) - 2 * np.log(t) - goal) / (3 * t / left + 2)
        t = t * np.exp(np.minimum(step, 0.0))
        if np.all(np.abs(step) < SETTLED):
            break
    return t, part.top


def _slower(part: AirtimeCell, span: Floats, price: float, longest: Floats) -> tuple[Floats, Floats]:
    """Return the same wherever x is, by bisection."""
    lead = price / (part.weight * part.noise)

    def efficiency(t: Floats) -> Floats:
        return part.within(inverse_psi(lead / t + part.fed))

    def worth(log_t: Floats) -> Floats:
        t = np.exp(log_t)
        saved = part.weight * part.slowing_gain(np.maximum(span - t, part.least_compute))
        found: Floats = np.log(price * part.airtime(efficiency(t)) / (t * t)) - np.log(saved)
        return found

    # slots at least as large as at full power are worth at least what full speed saves within this time
    least = part.weight * part.full_speed_gain
    soon, high = np.log(np.sqrt(price * part.airtime(part.top) / least)), np.log(longest)
    t = np.exp(bisect(worth, np.minimum(soon, high), high))
    return t, efficiency(t)


def radio_worths(
    cell: AirtimeCell, price: float, answer: Response, extra: Floats, tight: float
) -> tuple[Floats, Floats, float]:
    """Return what a drawn W and a J sent of each device's limits are worth, [K] each, and a Hz of the channel.

    Args:
        cell: what was solved.
        price: mu, 1/Hz.
        answer: of the devices.
        extra: [K] multipliers of caps on all energy.
        tight: relative distance from a limit up to which it binds.
    """
    x, t, weight = answer.efficiency, answer.transmit, cell.weight + extra
    worth = price / (cell.noise * t)
    saved = worth - weight * (psi(x) - cell.fed)  # per unit of 1 / x, over G a
    hot = x >= cell.full_efficiency * (1 - tight)
    steep = cell.noise * cell.channel * np.exp(x)  # W per unit of x
    power = np.where(hot, cell.noise * cell.payload * saved / (x * x * steep), 0.0)
    power = np.where(cell.full_power > 0, power, np.maximum(power, 0.0))
    full = (x >= cell.max_efficiency * (1 - tight)) & ~hot
    with np.errstate(divide="ignore", invalid="ignore"):
        radio = np.where(full, np.maximum(worth / (psi(x) - cell.fed) - weight, 0.0), 0.0)
    used = cell.payload / x
    # the same slots hold more: of sending and of the circuits' time; but the amplifier's power is spread more thinly
    more = ((weight + radio) * cell.circuit_power / cell.channel + price / t) * used / cell.channel
    wider = float((more - power * cell.max_power / cell.channel * hot).sum())
    return power, radio, wider
