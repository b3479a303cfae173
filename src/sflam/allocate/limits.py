"""Limits that no plan can hold, and networks that are none, in the user's words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.network.network import PER_DEVICE, PER_SERVER, Floats, Network

Owners = Callable[[NDArray[np.bool_]], str]

NAMED = 3  # devices that a sentence names
LONGEST = 1e12
"""Seconds of a round that are planned: beyond, a double does not tell its devices' times apart."""
RANGES: dict[str, tuple[float, float, str]] = {
    "gain": (1e-25, 1e40, ""),
    "max_power": (1e-9, 1e6, " W"),
    "max_clock": (1e3, 1e15, " Hz"),
    "flops_per_cycle": (1e-3, 1e9, ""),
    "kappa": (1e-40, 1e-15, " W s^3"),
    "static_power": (1e-9, 1e6, " W"),
    "amplifier_efficiency": (1e-6, 1.0, ""),
    "circuit_power": (1e-9, 1e6, " W"),
    "receive_power": (1e-9, 1e6, " W"),
    "energy_weight": (1e-9, 1e9, ""),
    "exchange_s": (1e-12, 1e12, " s"),
    "noise": (1e-30, 1e-6, " W/Hz"),
    "bandwidth": (1.0, 1e13, " Hz"),
    "server_clock": (1e3, 1e15, " Hz"),
    "server_flops_per_cycle": (1e-3, 1e9, ""),
    "server_kappa": (1e-40, 1e-15, " W s^3"),
    "latency_weight": (1e-9, 1.0, ""),
    "1 - latency_weight": (1e-9, 1.0, ""),
    "local_steps": (1e-18, 1e9, ""),  # a device that draws no rows makes next to none
    "made": (1e-18, 1e9, ""),
    "sent": (1e-18, 1e9, ""),
    "averages": (1e-9, 1e9, ""),
    "delay": (1e-12, 1e12, " s"),
    "receiving": (1e-12, 1e12, " s"),
    "base_s": (1e-12, 1e12, " s"),
    "base_j": (1e-18, 1e18, " J"),
    "sensitivity": (1e-12, 1e9, ""),
    "sensitivity_down": (1e-12, 1e9, ""),
    "payload": (1e-15, 1e18, " nats"),
    "layer_flops": (1e-3, 1e24, ""),
    "samples": (1e-3, 1e15, ""),
    "time_weight": (1e-9, 1e9, " 1/s"),
    "stability_weight": (1e-9, 1e9, ""),
    "fit_weight": (1e-9, 1e9, ""),
    "eigenvalue": (1e-9, 1e9, ""),
    "penalty": (1e-9, 1e9, ""),
    "lipschitz": (1e-9, 1e9, ""),
}
"""Numbers that are planned with, SI units: far beyond any hardware, and near enough for doubles to tell them apart."""


_ANY = (float(np.finfo(float).smallest_subnormal), float(np.finfo(float).max))
"""Of numbers without a range: above 0 and finite."""


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
    for name in PER_DEVICE:
        if name in ("memory", "down_rate"):
            continue
        positive = name in ("max_power", "max_clock", "flops_per_cycle", "amplifier_efficiency")
        found += wrong_values(name, getattr(network, name), partial(devices, network), positive)
    if (bad := ~(network.memory >= 0)).any():
        found.append(
            f"memory of {devices(network, bad)} is {network.memory[bad][0]}; it must be 0 or more bytes"
        )
    if (bad := ~(network.down_rate > 0)).any():
        found.append(
            f"down_rate of {devices(network, bad)} is {network.down_rate[bad][0]}; it must be above 0 bit/s"
        )
    if server is not None:
        found += wrong_values("bandwidth", network.bandwidth[[server]])
    for name in PER_SERVER if server is None else ():
        found += wrong_values(name, getattr(network, name), _first_server, name != "server_kappa")
    return found + wrong_values("noise", np.array([network.noise]))


def wrong_values(name: str, values: Floats, owners: Owners | None = None, positive: bool = True) -> list[str]:
    """Return a sentence where some values are not finite, not positive (or below 0), or beyond ``RANGES``.

    Args:
        name: what they are; one that ``RANGES`` lacks has no range.
        values: any shape that ``owners`` takes a mask of.
        owners: names what has the wrong ones.
        positive: whether 0 is wrong.
    """
    if _is_plainly_right(values, *RANGES.get(name, _ANY)[:2], positive):
        return []
    wrong = ~((values > 0 if positive else values >= 0) & np.isfinite(values))
    least, low, high, unit = "positive" if positive else "0 or more", 0.0, np.inf, ""
    if name in RANGES:
        low, high, unit = RANGES[name]
    rule = f"it must be {least} and finite"
    if not wrong.any():
        wrong = (values != 0) & ((values < low) | (values > high))
        rule = f"it must be {'' if positive else '0, or '}from {low:g} to {high:g}{unit}; check its unit"
    if not wrong.any():
        return []
    return [f"{name}{f' of {owners(wrong)}' if owners else ''} is {values[wrong][0]}; {rule}"]


def whole(values: NDArray[np.number[Any]], low: int, high: int) -> bool:
    """Return whether all values are whole numbers from ``low`` to ``high``."""
    return bool(((values >= low) & (values <= high) & (values == np.floor(values))).all())


def _is_plainly_right(values: Floats, low: float, high: float, positive: bool) -> bool:
    """Return whether all values lie in a range, or all are a 0 that may be; all else is looked at closely."""
    if not values.size:
        return False
    least, most = values.min(), values.max()
    return bool(low <= least and most <= high) or (not positive and bool(least == 0 == most))


def too_little(
    network: Network,
    poor: NDArray[np.bool_],
    slow: NDArray[np.bool_],
    computing: Floats,
    sending: Floats,
    heard: Floats,
) -> str:
    """Return what devices whose energy caps are too small would need at least.

    Args:
        network: all devices, K.
        poor: [K] those whose caps are.
        slow: [K] those that may compute at the slowest clock.
        computing: [K] J of computing at full speed.
        sending: [K] J of sending over unlimited bandwidth.
        heard: [K] J of receiving.
    """
    index = int(np.argmax(poor))
    need = 0.0 if slow[index] else float(computing[index])
    send, receive = float(sending[index]), float(heard[index])
    receives = f", {receive:.4g} J of receiving" if receive else ""
    speed = "the slowest clock" if slow[index] else "full speed"
    best = "all the time there is" if network.airtime else "unlimited bandwidth"
    return (
        f"the energy caps of {devices(network, poor)} are too small: a round of "
        f"{devices(network, np.arange(len(network)) == index)} takes more than {need + send + receive:.4g} J, "
        f"{need:.4g} J of computing at {speed}{receives} and {send:.4g} J of sending even over "
        f"{best}; raise the cap, cut earlier or send fewer bits"
    )


def _first_server(which: NDArray[np.bool_]) -> str:
    return f"server {int(np.argmax(which))}"


def devices(network: Network, which: NDArray[np.bool_]) -> str:
    """Return the names of the devices in a mask, the first few of them."""
    index = np.flatnonzero(which)
    names = [network.names[i] if network.names else f"device {i}" for i in index[:NAMED]]
    return ", ".join(names) + (f" and {len(index) - NAMED} more" if len(index) > NAMED else "")


def check_reach(busy: Floats, sending: Floats) -> None:
    """Refuse devices that alone, with all there is to share, take longer than rounds that are planned.

    Args:
        busy: [K] s of a round that a device waits and computes.
        sending: [K] s that it sends at full power.

    Raises:
        Impossible: one takes longer than ``LONGEST``.
    """
    alone = busy + sending
    slow = int(alone.argmax())
    if alone[slow] > LONGEST:
        raise Impossible(
            f"no round is shorter than {alone[slow]:.4g} s: one device waits and computes {busy[slow]:.4g} s and sends "
            f"{sending[slow]:.4g} s at full power, alone; at most {LONGEST:g} s are planned: leave out what is out of "
            "reach, cut earlier or send fewer bits"
        )
