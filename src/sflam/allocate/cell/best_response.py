"""Each device's best response to the price of bandwidth and the round's time (2.2), or to its bandwidth.

At bandwidth price mu and round time T a device minimises W (E_tx + E_cmp) + mu b over bandwidth b, transmission time t
and computing time tau with t + tau = T - c. The answer is unique, and follows a curve x(t) of spectral efficiency:

    free      psi(x) = mu / (W G t)                 time is worth mu b / t
    power     growth(x) = p_max t / (G a)           time is worth mu (-b') / t' - W p_max
    energy    growth(x) = E_cap / (G a)             time is worth mu b / t

of which the lowest at t holds. The clock is lowered until a second more of computing saves as much as a second of
transmission.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.curves import TINY, growth, inverse_growth, inverse_psi, psi
from sflam.allocate.roots import bisect
from sflam.network.network import Floats

Integers = NDArray[np.intp]


@dataclass(eq=False)
class Response:
    """What the devices do. Arrays [K].

    Attributes:
        first: x at full speed without caps, nat/s/Hz; a start for the next answer.
        efficiency: x, nat/s/Hz.
        bandwidth: b, Hz.
        transmit: t, s.
        compute: tau, s.
        time_price: zeta, 1/s: value of one more second of the round.
        free: whether no cap binds and the clock is at full speed: then energy is linear in the payload (2.17).
        extra: multiplier of the cap on the device's whole energy, 1/J; None where there are no such caps.
    """

    first: Floats
    efficiency: Floats
    bandwidth: Floats
    transmit: Floats
    compute: Floats
    time_price: Floats
    free: NDArray[np.bool_]
    extra: Floats | None = None

    def energy(self, cell: Cell) -> Floats:
        """Return [K] J of transmission, G a growth(x)."""
        return cell.noise * cell.payload * growth(self.efficiency)


def respond(cell: Cell, time: float | Floats, price: float, near: Response | None = None) -> Response:
    """Return each device's best answer to round time T (s) and bandwidth price mu > 0 (1/Hz), (2.3)-(2.7).

    ``time``, one for all or [K], must exceed ``cell.busy`` for every device; joint energy caps are ignored.
    ``near`` is the answer at a nearby time and price.
    """
    transmit = time - cell.busy
    with np.errstate(divide="ignore", over="ignore"):
        first = inverse_psi(
            price / (cell.weight * cell.noise * transmit), None if near is None else near.first
        )  # (2.3)
    answer = Response(first, first.copy(), first, transmit, cell.least_compute, first, first < np.inf)
    _cap(cell, answer, price)
    if cell.cycles.any():
        gain = cell.weight * cell.slowing_gain(cell.least_compute)
        slow = np.flatnonzero(gain > answer.time_price)
        if slow.size:
            span = (time - cell.delay)[slow]
            _slow_down(cell, answer, span, price, slow, near)
    return answer


def _cap(cell: Cell, answer: Response, price: float) -> None:
    """Hold power and radio energy at the given times, and set bandwidth and the price of time (2.5)-(2.7)."""
    x, t = answer.efficiency, answer.transmit
    np.minimum(x, cell.max_efficiency, out=x)
    full = cell.snr_bandwidth * t / cell.payload  # growth(x) at full power
    hot = np.flatnonzero(growth(x) > full)
    x[hot] = inverse_growth(full[hot])
    with np.errstate(divide="ignore"):
        answer.bandwidth = cell.payload / (x * t)
    answer.time_price = price * answer.bandwidth / t
    answer.free = x < cell.max_efficiency
    if hot.size:
        answer.time_price[hot] = power_time_price(cell.take(hot), x[hot], price)
        answer.free[hot] = False


def power_time_price(cell: Cell, x: Floats, price: float) -> Floats:
    """Return zeta [n] on the curve of full power: mu (-b'(x)) / t'(x) - W p_max (2.6)."""
    return power_balance(cell, x, price) - cell.weight * cell.max_power


def power_balance(cell: Cell, x: Floats, price: float) -> Floats:
    """Return mu (-b') / t' with b = Gam / (e^x - 1), t = a growth(x) / Gam."""
    snr, grown = cell.snr_bandwidth, growth(x)
    with np.errstate(divide="ignore", over="ignore"):
        value: Floats = price * snr * snr * np.exp(x) / (grown * grown * cell.payload * psi(x))
    return value


def _slow_down(
    cell: Cell, answer: Response, span: Floats, price: float, slow: Integers, near: Response | None
) -> None:
    """Slow the clocks of the devices ``slow`` that have ``span`` s [n]: free of caps by Newton (2.4), the others along
    their caps' curves."""
    part = cell.take(slow)
    x = _slow_free(part, span, price, answer.first[slow], None if near is None else near.efficiency[slow])
    t = price / (part.weight * part.noise * psi(x))
    ok = (x <= part.max_efficiency) & (growth(x) <= part.snr_bandwidth * t / part.payload)
    zeta = price * part.payload / (x * t * t)
    if not ok.all():
        bound = np.flatnonzero(~ok)
        x[bound], t[bound], zeta[bound] = _slow_capped(part.take(bound), span[bound], price)
    answer.efficiency[slow], answer.transmit[slow], answer.time_price[slow] = x, t, zeta
    answer.bandwidth[slow] = part.payload / (x * t)
    answer.compute = answer.compute.copy()
    answer.compute[slow] = np.maximum(span - t, part.least_compute)
    answer.free[slow] = False


def _slow_free(cell: Cell, span: Floats, price: float, start: Floats, guess: Floats | None) -> Floats:
    """Return x with t(x) + tau(x) = span (2.4), by Newton in ln x.

    At ``start``, the efficiency at full speed, the sum is too long; it is convex in ln x, so that Newton climbs.
    """
    x = start if guess is None else np.maximum(guess, start)
    lead = price / (cell.weight * cell.noise)
    load = cell.cycles * np.cbrt(2 * cell.weight * cell.kappa)
    for _ in range(200):
        value = psi(x)
        t = lead / value
        zeta = price * cell.payload / (x * t * t)
        tau = load / np.cbrt(zeta)
        gain = x * x * np.exp(x) / value  # d ln psi / d ln x
        fall = t * gain + tau * (2 * gain - 1) / 3
        step = (t + tau - span) / fall
        x = x * np.exp(np.clip(step, -0.7, 0.7))
        if np.all(np.abs(step) < 1e-8):
            break
    return x


def _slow_capped(cell: Cell, span: Floats, price: float) -> tuple[Floats, Floats, Floats]:
    """Return x, t and zeta [n] of devices that slow down with a cap active.

    Shorter than E_cap / p_max the power cap is the lower curve, longer the energy cap; the price of time jumps down
    between them, so that a device may also stay at that corner.
    """
    longest = span - cell.least_compute
    with np.errstate(over="ignore"):
        corner = cell.radio_cap / cell.max_power
    x = np.minimum(inverse_growth(cell.snr_bandwidth * longest / cell.payload), cell.max_efficiency)
    t, zeta = np.empty_like(x), np.empty_like(x)

    has = np.flatnonzero(corner < longest)
    some = cell.take(has)
    worth = some.weight * some.slowing_gain(span[has] - corner[has])
    on_energy = price * some.payload / (some.max_efficiency * corner[has] ** 2) > worth
    stays = ~on_energy & (power_time_price(some, some.max_efficiency, price) >= worth)
    t[has[stays]], zeta[has[stays]] = corner[has[stays]], worth[stays]

    index = has[on_energy]
    part, room = cell.take(index), span[index]
    value = price * part.payload / part.max_efficiency

    def gain(t: Floats) -> Floats:
        return part.slowing_gain(np.maximum(room - t, part.least_compute))

    t[index] = bisect(
        lambda t: np.log(value / (t * t)) - np.log(np.maximum(part.weight * gain(t), TINY)),
        corner[index],
        longest[index],
    )
    zeta[index] = value / t[index] ** 2

    rest = np.setdiff1d(np.arange(len(cell)), has[on_energy | stays])
    power, span_ = cell.take(rest), span[rest]

    def time_at(u: Floats) -> Floats:
        return power.payload * growth(np.exp(u)) / power.snr_bandwidth

    def balance(u: Floats) -> Floats:
        saved = power.max_power + power.slowing_gain(np.maximum(span_ - time_at(u), power.least_compute))
        return np.log(power_balance(power, np.exp(u), price)) - np.log(np.maximum(power.weight * saved, TINY))

    top = np.log(x[rest])
    u = bisect(balance, top - 60, top)
    x[rest], t[rest] = np.exp(u), time_at(u)
    zeta[rest] = power_time_price(power, x[rest], price)
    return x, t, zeta
