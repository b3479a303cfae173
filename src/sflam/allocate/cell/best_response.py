"""Each device's best response to the price of bandwidth and the round's time (2.2), or to its bandwidth.

At bandwidth price mu and round time T a device minimises W (E_tx + E_cmp) + mu b over bandwidth b, transmission time t
and computing time tau with t + tau = T - c. The answer is unique, and follows a curve x(t) of spectral efficiency:

    free      psi(x) = mu / (W G t)                 time is worth mu b / t - W P_c
    power     growth(x) = p_max t / (G a)           time is worth mu (-b') / t' - W (p_max + P_c)
    energy    growth(x) = (E_cap - P_c t) / (G a)   time is worth (mu / t) (b - P_c / (G psi(x)))

of which the lowest at t holds. The clock is lowered until a second more of computing saves as much as a second of
transmission. Circuits draw P_c for as long as the radio sends: where a second more of that would cost more than it
saves, a device sends for less than its time, and its time is worth only what slower computing saves, if anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.curves import LARGEST, TINY, growth, inverse_growth, inverse_psi, psi
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
        held: what devices do on those caps at this time, whatever the price, for the next answer.
    """

    first: Floats
    efficiency: Floats
    bandwidth: Floats
    transmit: Floats
    compute: Floats
    time_price: Floats
    free: NDArray[np.bool_]
    extra: Floats | None = None
    held: object = None

    def energy(self, cell: Cell) -> Floats:
        """Return [K] J of transmission, G a growth(x) + P_c t."""
        return cell.sending(self.efficiency, self.transmit)


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
        if cell.circuits or cell.cycles.any():
            gain = cell.weight * cell.full_speed_gain
            (slow,) = (gain > answer.time_price).nonzero()
            if slow.size:
                span = (time - cell.delay)[slow]
                _slow_down(cell, answer, span, price, slow, near)
    return answer


def _cap(cell: Cell, answer: Response, price: float) -> None:
    """Hold power and radio energy at the given times, and set bandwidth and the price of time (2.5)-(2.7)."""
    x, t = answer.efficiency, answer.transmit
    most = cell.efficiency_within(t)
    np.minimum(x, most, out=x)
    full = cell.snr_bandwidth * t / cell.payload  # growth(x) at full power
    (hot,) = (growth(x) > full).nonzero()
    if hot.size:
        x[hot] = cell.grown_to(full[hot])
    answer.bandwidth = cell.payload / (x * t)
    answer.time_price = price * answer.bandwidth / t
    answer.free = x < most
    if cell.circuits:
        _feed_circuits(cell, answer, price)
    if hot.size:
        answer.time_price[hot] = power_time_price(cell.part(hot), x[hot], price)
        answer.free[hot] = False


def _feed_circuits(cell: Cell, answer: Response, price: float) -> None:
    """Take what circuits draw in a second off the worth of time, at a weight that is the cap's own where that binds."""
    x, t = answer.efficiency, answer.transmit
    with np.errstate(divide="ignore", invalid="ignore"):
        spent = np.where(answer.free, cell.weight, price / (cell.noise * t * psi(x))) * cell.circuit_power
        answer.time_price = np.where(x > 0, answer.time_price - spent, -np.inf)


def power_time_price(cell: Cell, x: Floats, price: float) -> Floats:
    """Return zeta [n] on the curve of full power: mu (-b'(x)) / t'(x) - W (p_max + P_c) (2.6)."""
    return power_balance(cell, x, price) - cell.weight * (cell.max_power + cell.circuit_power)


def power_balance(cell: Cell, x: Floats, price: float) -> Floats:
    """Return mu (-b') / t' with b = Gam / (e^x - 1), t = a growth(x) / Gam."""
    snr, grown = cell.snr_bandwidth, growth(x)
    with np.errstate(divide="ignore", over="ignore"):
        value: Floats = price * snr * snr * np.exp(x) / (grown * grown * cell.payload * psi(x))
    return value


def _slow_down(
    cell: Cell, answer: Response, span: Floats, price: float, slow: Integers, near: Response | None
) -> None:
    """Slow the clocks of the devices ``slow`` that have ``span`` s [n], and end their sending where that is best: free
    of caps by Newton (2.4), or by bisection where circuits draw power, the others along their caps' curves."""
    part = cell.part(slow)
    if cell.circuits:
        x = _end_free(part, span, price, answer.first[slow])
    else:
        x = _slow_free(part, span, price, answer.first[slow], None if near is None else near.efficiency[slow])
    t = price / (part.weight * part.noise * psi(x))
    ok = (x <= part.efficiency_within(t)) & (growth(x) <= part.snr_bandwidth * t / part.payload)
    zeta = price * part.payload / (x * t * t)
    if cell.circuits:
        zeta = np.maximum(zeta - part.weight * part.circuit_power, 0.0)
    if not ok.all():
        bound = np.flatnonzero(~ok)
        x[bound], t[bound], zeta[bound] = _slow_capped(part.take(bound), span[bound], price)
    answer.efficiency[slow], answer.transmit[slow], answer.time_price[slow] = x, t, zeta
    answer.bandwidth[slow] = part.payload / (x * t)
    answer.compute = answer.compute.copy()
    slower = part.weight * part.full_speed_gain > 0
    answer.compute[slow] = np.where(slower, np.maximum(span - t, part.least_compute), part.least_compute)
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
        x = x * np.exp(np.minimum(np.maximum(step, -0.7), 0.7))
        if (np.abs(step) < 1e-8).all():
            break
    return x


def _end_free(cell: Cell, span: Floats, price: float, start: Floats) -> Floats:
    """Return x at which a second of sending is worth what a second of computing is: mu b / t - W P_c = W 2 kappa f^3.

    ``start`` is the efficiency of the longest sending, where it is worth less. At no weight no energy is worth an end:
    the largest, which no device can keep.
    """
    x = np.full(len(cell), LARGEST)
    some = np.flatnonzero(cell.weight > 0)
    part, room, first = cell.take(some), span[some], start[some]
    lead, least = price / (part.weight * part.noise), part.least_compute
    most = part.weight * (part.circuit_power + part.slowing_gain(least))
    # psi^2 / x = y at the end that is best with nothing to compute in the meantime; no other is shorter
    log_y = np.log(np.maximum(most, TINY)) + 2 * np.log(lead) - np.log(price * part.payload)
    top = np.minimum(
        np.exp(np.minimum((np.log(4) + log_y) / 3, 1.0 + LARGEST)), 2 + np.logaddexp(0, log_y / 2)
    )

    def excess(u: Floats) -> Floats:
        value = np.minimum(np.exp(u), LARGEST)
        t = lead / psi(value)
        other = part.circuit_power + part.slowing_gain(np.maximum(room - t, least))
        worth = price * part.payload / (value * t * t)
        found: Floats = np.log(np.maximum(part.weight * other, TINY)) - np.log(worth)
        return found

    low = np.log(first)
    x[some] = np.exp(bisect(excess, low, np.maximum(np.log(top), low)))
    return x


def _slow_capped(cell: Cell, span: Floats, price: float) -> tuple[Floats, Floats, Floats]:
    """Return x, t and zeta [n] of devices that slow down with a cap active.

    Shorter than E_cap / (p_max + P_c) the power cap is the lower curve, longer the energy cap; the price of time jumps
    down between them, so that a device may also stay at that corner.
    """
    longest, corner = span - cell.least_compute, cell.corner
    edge = np.minimum(longest, corner)
    x = np.minimum(inverse_growth(cell.snr_bandwidth * edge / cell.payload), cell.efficiency_within(edge))
    t, zeta = np.empty_like(x), np.empty_like(x)

    has = np.flatnonzero(corner < longest)
    some = cell.take(has)
    worth = some.weight * some.slowing_gain(span[has] - corner[has])
    on_energy = _later_time_price(some, corner[has], x[has], price) > worth
    stays = ~on_energy & (power_time_price(some, x[has], price) >= worth)
    t[has[stays]], zeta[has[stays]] = corner[has[stays]], worth[stays]

    index = has[on_energy]
    part, room = cell.take(index), span[index]

    def gain(t: Floats) -> Floats:
        return part.slowing_gain(np.maximum(room - t, part.least_compute))

    def beyond(t: Floats) -> Floats:
        worth, fed = _on_cap(part, t, price)
        found: Floats = np.log(worth) - np.log(np.maximum(part.weight * gain(t) + fed, TINY))
        return found

    lasts = longest[index]
    if cell.circuits:  # no longer than circuits alone would last
        with np.errstate(divide="ignore"):
            spare = (part.radio_cap - part.noise * part.payload) / part.circuit_power
        lasts = np.maximum(np.minimum(lasts, spare * (1 - 1e-12)), corner[index])
    t[index] = bisect(beyond, corner[index], lasts)
    x[index] = part.efficiency_within(t[index])
    zeta[index] = np.maximum(cap_time_price(part, t[index], price), 0.0)

    rest = np.setdiff1d(np.arange(len(cell)), has[on_energy | stays])
    power, span_ = cell.take(rest), span[rest]

    def time_at(u: Floats) -> Floats:
        return power.payload * growth(np.exp(u)) / power.snr_bandwidth

    def balance(u: Floats) -> Floats:
        slower = power.slowing_gain(np.maximum(span_ - time_at(u), power.least_compute))
        saved = power.max_power + power.circuit_power + slower
        return np.log(power_balance(power, np.exp(u), price)) - np.log(np.maximum(power.weight * saved, TINY))

    top = np.log(x[rest])
    u = bisect(balance, top - 60, top)
    x[rest], t[rest] = np.exp(u), time_at(u)
    zeta[rest] = power_time_price(power, x[rest], price)
    return x, t, np.maximum(zeta, 0.0) if cell.circuits else zeta


def _later_time_price(cell: Cell, corner: Floats, x: Floats, price: float) -> Floats:
    """Return zeta [n] just beyond the ``corner`` of both caps, where efficiency is ``x``: on the curve of the radio's
    cap, or below it where the weight alone makes less efficiency best, as with circuits it can."""
    found = cap_time_price(cell, corner, price)
    if cell.circuits and (low := price < cell.weight * cell.noise * corner * psi(x)).any():
        part, t = cell.take(low), corner[low]
        free = inverse_psi(price / (part.weight * part.noise * t))
        found[low] = price * part.payload / (free * t * t) - part.weight * part.circuit_power
    return found


def cap_time_price(cell: Cell, transmit: Floats, price: float) -> Floats:
    """Return zeta [n] on the curve of the radio's cap: (mu / t) (b - P_c / (G psi(x)))."""
    worth, fed = _on_cap(cell, transmit, price)
    return worth - fed


def _on_cap(cell: Cell, transmit: Floats, price: float) -> tuple[Floats, Floats]:
    """Return mu b / t and what circuits take of it, [n] each, where the radio's cap binds."""
    x = np.maximum(cell.efficiency_within(transmit), TINY)
    worth: Floats = price * cell.payload / (x * transmit * transmit)
    if not cell.circuits:
        return worth, np.zeros(len(cell))
    with np.errstate(divide="ignore"):
        fed: Floats = price * cell.circuit_power / (cell.noise * transmit * psi(x))
    return worth, fed
