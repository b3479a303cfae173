"""What computing costs in joules (1.12), for planner, referee and simulator alike; arrays broadcast."""

from __future__ import annotations

from sflam.network.network import Floats


def computing_j(cycles: Floats, clock: Floats, kappa: Floats, static_power: Floats) -> Floats:
    """Return the J of computing C cycles at a clock f, kappa f^2 C + P0 C / f (1.12).

    Args:
        cycles: C.
        clock: f, Hz.
        kappa: W s^3.
        static_power: P0, drawn while computing at any clock, W.
    """
    return cycles * (kappa * clock**2 + static_power / clock)


def serving_j(cycles: Floats, clock: Floats, kappa: Floats) -> Floats:
    """Return the J of a server that computes C cycles at a clock f, kappa f^2 C."""
    return kappa * clock**2 * cycles
