"""Limits that no plan can hold, and networks that are none, in the user's words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sflam.network.network import PER_SERVER, Floats, Network

Owners = Callable[[NDArray[np.bool_]], str]

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
        positive = name in ("max_power", "max_clock", "flops_per_cycle")
        found += wrong_values(name, getattr(network, name), partial(devices, network), positive)
    if np.isnan(network.memory).any():
        found.append(f"memory of {devices(network, np.isnan(network.memory))} is not a number")
    if server is not None:
        found += wrong_values("bandwidth", network.bandwidth[[server]])
    for name in PER_SERVER if server is None else ():
        found += wrong_values(name, getattr(network, name), _first_server, name != "server_kappa")
    return found + wrong_values("noise", np.array([network.noise]))


def wrong_values(name: str, values: Floats, owners: Owners | None = None, positive: bool = True) -> list[str]:
    """Return a sentence where some values are not finite, or not positive (or below 0); ``owners`` names theirs."""
    wrong = ~((values > 0 if positive else values >= 0) & np.isfinite(values))
    if not wrong.any():
        return []
    least, of = "positive" if positive else "0 or more", f" of {owners(wrong)}" if owners else ""
    return [f"{name}{of} is {values[wrong][0]}; it must be {least} and finite"]


def _first_server(which: NDArray[np.bool_]) -> str:
    return f"server {int(np.argmax(which))}"


def devices(network: Network, which: NDArray[np.bool_]) -> str:
    """Return the names of the devices in a mask, the first few of them."""
    index = np.flatnonzero(which)
    names = [network.names[i] if network.names else f"device {i}" for i in index[:NAMED]]
    return ", ".join(names) + (f" and {len(index) - NAMED} more" if len(index) > NAMED else "")
