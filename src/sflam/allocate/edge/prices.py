"""What one user does at one server, given the price of a hertz of its band and of its clock (3.2)-(3.4).

Everything is elementwise: an element is a pair of a user and a server. With x = a / (b t) nat/s/Hz, psi and growth of
``curves``, G = N0 / g, W = w_e w_n and Gam = p_max / G:

    free     psi(x) / sqrt(x) = sqrt(w_t mu / a) / (W G),    b = sqrt(w_t a / (mu x))                          (3.2)
    capped   psi(x) growth(x)^2 e^-x = mu Gam^2 / ((w_t + W p_max) a),   b = Gam / (e^x - 1)                   (3.3)
    server   2 w_e kappa f^3 + (nu / L) f^2 = w_t,  L = (Y - alpha) C' cycles, and f at most the whole clock   (3.4)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sflam.allocate.curves import growth, inverse_psi, psi
from sflam.network.network import Floats

ROUNDS = 60  # of Newton; from the bounds below a dozen suffice
TINY = 1e-12
LARGEST = 300.0  # of x; no power cap lets a link come near
CLOSE = 1e-9  # step in ln x after which the next one would be below rounding


@dataclass(frozen=True, eq=False)
class Links:
    """Pairs of users and servers, [n] each: what sending costs them.

    Attributes:
        payload: nats, a.
        noise: J per nat at infinite bandwidth, as drawn by the amplifier, G.
        weight: W, 1/J; 0 sends at full power.
        max_power: W drawn at full power.
        time_weight: w_t, 1/s, with what circuits draw: w_t + W P_c.
    """

    payload: Floats
    noise: Floats
    weight: Floats
    max_power: Floats
    time_weight: Floats

    def times(self, bandwidth: Floats, efficiency: Floats) -> Floats:
        """Return t = a / (b x), s."""
        return self.payload / (bandwidth * efficiency)

    def power(self, bandwidth: Floats, efficiency: Floats) -> Floats:
        """Return p = G b (e^x - 1), at most p_max, W."""
        with np.errstate(over="ignore"):
            return np.minimum(self.noise * bandwidth * np.expm1(efficiency), self.max_power)

    def cost(self, bandwidth: Floats, efficiency: Floats) -> Floats:
        """Return w_t t + W p t, without what bandwidth costs."""
        power = self.power(bandwidth, efficiency)
        return (self.time_weight + self.weight * power) * self.times(bandwidth, efficiency)

    def respond(self, price: Floats, near: Floats | None = None) -> tuple[Floats, Floats]:
        """Return bandwidths (Hz) and efficiencies x at prices mu > 0 (1/Hz); ``near`` is x at nearby prices."""
        snr = self.max_power / self.noise
        with np.errstate(divide="ignore"):
            y = np.sqrt(self.time_weight * price / self.payload) / (self.weight * self.noise)
        free = y < 1e100
        y = np.where(free, y, 1.0)
        x = _root(_free, np.log(y), np.minimum(np.cbrt(4 * y * y), 2 + np.log1p(y)), near)
        with np.errstate(over="ignore", divide="ignore"):
            b = np.sqrt(self.time_weight * self.payload / (price * x))
            hot = ~free | (b * np.expm1(x) > snr)
        if hot.any():
            index = np.flatnonzero(hot)
            cost = (self.time_weight + self.weight * self.max_power)[index] * self.payload[index]
            z = price[index] * snr[index] ** 2 / cost
            first = np.minimum(np.sqrt(2 * z), 2 + np.log1p(z))
            x[index] = _root(_capped, np.log(z), first, None if near is None else near[index])
            b[index] = snr[index] / np.expm1(x[index])
        return b, x


def efficiency(links: Links, bandwidth: Floats) -> Floats:
    """Return the best x at given bandwidths: w_t = W G b psi(x), or full power where that takes more."""
    with np.errstate(divide="ignore"):
        x = inverse_psi(links.time_weight / (links.weight * links.noise * bandwidth))
    return np.minimum(x, np.log1p(links.max_power / (links.noise * bandwidth)))


def server_clock(ratio: Floats, weight: Floats, time_weight: float, top: Floats) -> Floats:
    """Return the best clock shares, Hz (3.4).

    Args:
        ratio: nu / L, price of a hertz over the cycles to do.
        weight: w_e kappa of the server.
        time_weight: w_t.
        top: the server's whole clock.
    """
    with np.errstate(divide="ignore"):
        alone = np.minimum(np.cbrt(time_weight / (2 * weight)), top * 1e3)  # without a price
    # u = alone / f solves u^3 = c u + d; Newton falls to its root. Below TINY, d does not matter: u is then above 1000
    c = ratio * alone**2 / time_weight
    d = np.maximum(2 * weight * alone**3 / time_weight, TINY)
    u = np.cbrt(d) + np.sqrt(c)
    for _ in range(ROUNDS):
        step = (u * u * u - c * u - d) / (3 * u * u - c)
        u = u - step
        if np.all(np.abs(step) <= 1e-9 * u):
            break
    best: Floats = np.minimum(alone / u, top)
    return best


Curve = Callable[[Floats], tuple[Floats, Floats]]


def _free(x: Floats) -> tuple[Floats, Floats]:
    """Return ln(psi / sqrt(x)) and its slope in ln x."""
    value = psi(x)
    return np.log(value) - 0.5 * np.log(x), x * x * np.exp(x) / value - 0.5


def _capped(x: Floats) -> tuple[Floats, Floats]:
    """Return ln(psi growth^2 e^-x) and its slope in ln x."""
    value, grown = psi(x), growth(x)
    return np.log(value) + 2 * np.log(grown) - x, x * x * np.exp(x) / value + 2 * np.exp(x) / grown - 2 - x


def _root(curve: Curve, goal: Floats, upper: Floats, near: Floats | None) -> Floats:
    """Return x where an increasing ``curve``, convex in ln x, is ``goal``: Newton falls to it from ``upper``."""
    upper = np.minimum(upper, LARGEST)
    x = upper if near is None else np.minimum(near, upper)
    for _ in range(ROUNDS):
        value, slope = curve(x)
        step = (value - goal) / slope
        x = np.minimum(x * np.exp(-np.clip(step, -5.0, 5.0)), upper)
        if np.all(np.abs(step) < CLOSE):
            break
    return x
