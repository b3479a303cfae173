"""What sending takes as a function of ln b and ln t, with slopes and curvature: over a band, or in slots of a channel.

With x = a / (b t), over a band of b Hz

    E = G a growth(x) + P_c t,  powers b (e^x - 1) G <= p_max

and in a share b / B of the time of a channel of B Hz, where circuits draw in own slots alone,

    E = G a growth(x) + P_c b t / B,  x <= ln(1 + p_max / (G B))

Both are convex in the logarithms, as is the logarithm of E: growth is a power series with positive coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sflam.allocate.cell.airtime import AirtimeCell
from sflam.allocate.cell.arrays import Cell
from sflam.allocate.curves import growth, psi
from sflam.network.network import Floats


@dataclass(kw_only=True, eq=False)
class SendingTerms:
    """Values [K] at a point; slopes and curvature are along ln b + ln t.

    Attributes:
        radio: J of what hangs on ln b + ln t alone.
        radio_slope: its slope.
        radio_bend: its curvature.
        fed: J that are in proportion to t.
        power: ln of the drawn power over the largest, 0 or less within it.
        lean: its slope.
        lean_bend: its curvature.
        alone: what it falls with ln t beside that.
    """

    radio: Floats
    radio_slope: Floats
    radio_bend: Floats
    fed: Floats
    power: Floats
    lean: Floats
    lean_bend: Floats
    alone: float


def sending_terms(cell: Cell, band: Floats, send: Floats) -> SendingTerms:
    """Return what sending takes at ln b and ln t, [K] each."""
    x, lead = cell.payload * np.exp(-band - send), cell.noise * cell.payload
    radio, slope = lead * growth(x), -lead * psi(x) / x
    bend = lead * (x * x * np.exp(x) - psi(x)) / x
    if isinstance(cell, AirtimeCell):
        fed = cell.circuit_power * cell.payload / (cell.channel * x)
        full = cell.full_power > 0  # sent in as many slots, however many more there are
        ones = np.ones(len(cell))
        return SendingTerms(
            radio=np.where(full, cell.least_energy, radio + fed),
            radio_slope=np.where(full, 0.0, slope + fed),
            radio_bend=np.where(full, 0.0, bend + fed),
            fed=0.0 * ones,
            power=np.log(x / cell.full_efficiency),
            lean=-ones,
            lean_bend=0.0 * ones,
            alone=0.0,
        )
    falling, short = np.exp(-x), -np.expm1(-x)
    return SendingTerms(
        radio=radio,
        radio_slope=slope,
        radio_bend=bend,
        fed=cell.circuit_power * np.exp(send),
        power=np.log(cell.noise / cell.max_power) + band + x + np.log(short),
        lean=1 - x / short,
        lean_bend=x * (1 - falling - x * falling) / np.square(short),
        alone=1.0,
    )
