"""What computing and the radio cost in joules (1.12), for planner, referee and simulator alike; arrays broadcast."""

from __future__ import annotations

from sflam.network.network import Floats


def idle_j(static_power: Floats, seconds: float | Floats) -> Floats:
    """Return the J that devices draw at any clock, over a whole round: P0 T."""
    return static_power * seconds


def sending_j(
    power: Floats, seconds: float | Floats, efficiency: Floats | float = 1.0, circuit: Floats | float = 0.0
) -> Floats:
    """Return the J of sending, (p / eta + P_c) t.

    Args:
        power: p, radiated, W.
        seconds: t.
        efficiency: eta, radiated over drawn power of the amplifier.
        circuit: P_c, what the rest of the radio draws while it sends, W.
    """
    return (power / efficiency + circuit) * seconds


def receiving_j(power: Floats, seconds: float | Floats) -> Floats:
    """Return the J of a radio that draws ``power`` W while it receives."""
    return power * seconds


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
