"""Limits that no choice of bandwidth can help, in the user's words; and input that is no network at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.roots import bisect
from sflam.network.network import Floats, Network

NAMED = 3  # devices that a sentence names


class Impossible(Exception):
    """No plan holds the limits; ``advice`` says by how much, and what to change."""

    def __init__(self, *advice: str) -> None:
        self.advice = advice
        super().__init__("; ".join(advice))


def wrong_network(network: Network, server: int) -> list[str]:
    """Return sentences for numbers with which no network can be: zero gains, NaN, nothing to share."""
    if not len(network):
        return ["the network has no devices; give at least one"]
    if not 0 <= server < len(network.bandwidth):
        return [f"server {server} of {len(network.bandwidth)}; count from 0"]
    found = []
    gain = network.gain[server]
    if (wrong := ~((gain > 0) & np.isfinite(gain))).any():
        found.append(f"gain of {devices(network, wrong)} is {gain[wrong][0]}; it must be positive and finite")
    found += wrong_devices(network)
    for name, value in (("bandwidth", float(network.bandwidth[server])), ("noise", float(network.noise))):
        if not (value > 0 and np.isfinite(value)):
            found.append(f"{name} is {value}; it must be positive and finite")
    return found


def wrong_devices(network: Network) -> list[str]:
    """Return sentences for devices' numbers, gains apart, with which no network can be."""
    found = []
    for name in ("max_power", "max_clock", "flops_per_cycle"):
        values = getattr(network, name)
        if (wrong := ~((values > 0) & np.isfinite(values))).any():
            found.append(
                f"{name} of {devices(network, wrong)} is {values[wrong][0]}; it must be positive and finite"
            )
    for name in ("kappa", "static_power", "energy_weight"):
        values = getattr(network, name)
        if (wrong := ~((values >= 0) & np.isfinite(values))).any():
            found.append(
                f"{name} of {devices(network, wrong)} is {values[wrong][0]}; it must be 0 or more and finite"
            )
    if np.isnan(network.memory).any():
        found.append(f"memory of {devices(network, np.isnan(network.memory))} is not a number")
    return found


def devices(network: Network, which: NDArray[np.bool_]) -> str:
    """Return the names of the devices in a mask, the first few of them."""
    index = np.flatnonzero(which)
    names = [network.names[i] if network.names else f"device {i}" for i in index[:NAMED]]
    return ", ".join(names) + (f" and {len(index) - NAMED} more" if len(index) > NAMED else "")


def fastest_clock(
    cycles: Floats, max_clock: Floats, kappa: Floats, static_power: Floats, cap: Floats
) -> Floats:
    """Return the fastest clock [K], Hz, at which computing stays within ``cap`` J; 0 where none does (2.7).

    Energy is kappa f^2 C + P0 C / f, least at f = (P0 / (2 kappa))^(1/3).
    """

    def excess(clock: Floats, index: NDArray[np.intp]) -> Floats:
        energy = cycles[index] * (kappa[index] * clock**2 + static_power[index] / clock)
        with np.errstate(divide="ignore"):
            value: Floats = np.log(np.maximum(cap[index], 0.0) / energy)
        return value

    clock = max_clock.astype(float).copy()
    tight = np.flatnonzero(cycles * (kappa * clock**2 + static_power / clock) > cap)
    with np.errstate(divide="ignore"):
        frugal = np.cbrt(static_power[tight] / (2 * kappa[tight]))
    frugal = np.clip(frugal, 1e-9 * clock[tight], clock[tight])
    possible = excess(frugal, tight) >= 0
    clock[tight[~possible]] = 0.0
    some = tight[possible]
    clock[some] = np.exp(
        bisect(lambda u: excess(np.exp(u), some), np.log(frugal[possible]), np.log(clock[some]))
    )
    # the root may lie a rounding error above the cap
    clock[some] *= 1 - 1e-14
    return clock
