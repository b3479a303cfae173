"""What a method decides, and what the referee says of it."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.network.network import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares:
    """What a method decides, [K] each.

    Attributes:
        bandwidth: Hz.
        power: W.
        clock: Hz.
        subchannels: [K] how many, or None where bandwidth is continuous.
    """

    bandwidth: Floats
    power: Floats
    clock: Floats
    subchannels: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class CellScore:
    """The referee's word on shares, SI; arrays [K], a whole round.

    Attributes:
        objective: what (2.1) minimises, T0 included.
        latency: s.
        energy: J, unweighted: transmission, and computing where clocks are chosen.
        compute: s.
        transmit: s.
        compute_energy: J.
        transmit_energy: J.
        violations: name of a broken limit -> by how much, relative.
    """

    objective: float
    latency: float
    energy: float
    compute: Floats
    transmit: Floats
    compute_energy: Floats
    transmit_energy: Floats
    violations: dict[str, float]
