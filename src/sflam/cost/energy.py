"""What computing costs in joules (1.12), for planner, referee and simulator alike; arrays broadcast."""

from __future__ import annotations

from sflam.network.network import Floats


def idle_j(static_power: Floats, seconds: float | Floats) -> Floats:
    """Return the J that devices draw at any clock, over a whole round: P0 T."""
    return static_power * seconds


def computing_j(cycles: Floats, clock: Floats, kappa: Floats, static_power: Floats | float = 0.0) -> Floats:
    """Return the J of computing C cycles at a clock f, kappa f^2 C + P0 C / f (1.12).

    Args:
        cycles: C.
        clock: f, Hz.
        kappa: W s^3.
        static_power: P0 where it is only counted while computing, as among several servers, W.
    """
    return cycles * (kappa * clock**2 + static_power / clock)


def serving_j(cycles: Floats, clock: Floats, kappa: Floats) -> Floats:
    """Return the J of a server that computes C cycles at a clock f, kappa f^2 C."""
    return kappa * clock**2 * cycles
