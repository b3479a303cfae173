"""Limits that no plan can hold, and networks that are none, in the user's words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sflam.network.network import Network

NAMED = 3  # devices that a sentence names


class Impossible(Exception):
    """No plan holds the limits; ``advice`` says by how much, and what to change."""

    def __init__(self, *advice: str) -> None:
        self.advice = advice
        super().__init__("; ".join(advice))


def wrong_numbers(network: Network, server: int | None = None) -> list[str]:
    """Return sentences for numbers, gains apart, with which no network can be: NaN, zero, nothing to share.

    Args:
        network: devices and servers.
        server: the only server in use; None uses all of them, clocks included.
    """
    found = []
    for name in ("max_power", "max_clock", "flops_per_cycle", "kappa", "static_power", "energy_weight"):
        values, positive = getattr(network, name), name in ("max_power", "max_clock", "flops_per_cycle")
        if (wrong := _wrong(values, positive)).any():
            least = "positive" if positive else "0 or more"
            found.append(
                f"{name} of {devices(network, wrong)} is {values[wrong][0]}; it must be {least} and finite"
            )
    if np.isnan(network.memory).any():
        found.append(f"memory of {devices(network, np.isnan(network.memory))} is not a number")
    if server is not None:
        band = float(network.bandwidth[server])
        if not 0 < band < np.inf:
            found.append(f"bandwidth is {band}; it must be positive and finite")
    for name in (
        () if server is not None else ("bandwidth", "server_clock", "server_flops_per_cycle", "server_kappa")
    ):
        values, positive = getattr(network, name), name != "server_kappa"
        if (wrong := _wrong(values, positive)).any():
            index = int(np.argmax(wrong))
            least = "positive" if positive else "0 or more"
            found.append(f"{name} of server {index} is {values[index]}; it must be {least} and finite")
    if not 0 < network.noise < np.inf:
        found.append(f"noise is {float(network.noise)}; it must be positive and finite")
    return found


def _wrong(values: NDArray[np.float64], positive: bool) -> NDArray[np.bool_]:
    wrong: NDArray[np.bool_] = ~((values > 0 if positive else values >= 0) & np.isfinite(values))
    return wrong


def devices(network: Network, which: NDArray[np.bool_]) -> str:
    """Return the names of the devices in a mask, the first few of them."""
    index = np.flatnonzero(which)
    names = [network.names[i] if network.names else f"device {i}" for i in index[:NAMED]]
    return ", ".join(names) + (f" and {len(index) - NAMED} more" if len(index) > NAMED else "")
