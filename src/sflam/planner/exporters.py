"""A plan in the words of those who shape networks: Linux's ``tc``, and quality-on-demand or slice interfaces.

A served run keeps to its bits, and with ``plan.pace`` to its rates; what it cannot set, others can: these files hold
each device's planned rate. Transmit power stays with the radio, which no command here reaches.

- ``.sh``: a function with one ``tbf`` line for each device, to be called there.
- ``.json``: the QoS profiles of CAMARA's Quality-On-Demand (v1, ``QosProfile``: ``targetMinUpstreamRate``,
  ``maxUpstreamRate``), and the ``sliceQosProfile`` of its Network Slice Booking that holds all devices.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from sflam.errors import ConfigError
from sflam.files import writing
from sflam.plan import Plan

POWER = "Transmit power is no setting of a network interface: each radio keeps its own."
BURST_S, QUEUE_MS = 0.02, 400
LEAST_BURST = 1 << 15
"""Bytes: a bucket below a few packets carries nothing."""


def export(plan: Plan, names: Sequence[str], path: Path) -> None:
    """Write a plan's rates to a file that ends with ``.sh`` or ``.json``.

    Raises:
        ConfigError: another ending, a plan without devices, or the disk refuses.
    """
    made = {".sh": tc_script, ".json": qod_json}.get(path.suffix)
    if made is None:
        raise ConfigError(
            f"--export {path} ends with {path.suffix!r}; .sh for tc, .json for a QoD or slice API"
        )
    if not len(plan.devices):
        raise ConfigError(f"--export {path}: the plan gives no device anything")
    with writing(path, "give another path", ConfigError):
        path.write_text(made(plan, names), encoding="utf-8")


def tc_script(plan: Plan, names: Sequence[str]) -> str:
    """Return a shell script that limits an interface to what its device was planned to send with."""
    lines = [
        "#!/bin/sh",
        "# sh plan.sh DEVICE INTERFACE, on each device, as root; undo it with tc qdisc del dev INTERFACE root.",
        f"# {POWER}",
        "set -eu",
        'case "$1" in',
    ]
    for name, device in zip(names, plan.devices, strict=True):
        rate = max(1, math.ceil(device.rate_up))
        burst = max(LEAST_BURST, math.ceil(rate / 8 * BURST_S))
        shaped = f"tbf rate {rate}bit burst {burst} latency {QUEUE_MS}ms"
        lines.append(f'{shlex.quote(name)}) tc qdisc replace dev "$2" root {shaped} ;;')
    lines += ['*) echo "no device $1 in this plan" >&2; exit 2 ;;', "esac"]
    return "\n".join(lines) + "\n"


def qod_json(plan: Plan, names: Sequence[str]) -> str:
    """Return QoS profiles of each device, and the slice that holds all."""
    rates = [max(1, math.ceil(device.rate_up / 1e3)) for device in plan.devices]
    profiles = [
        {
            "name": _profile_name(name),
            "device": name,
            "description": f"{device.payload_bits / 8e6:.4g} MB up in {device.transmit_s:.4g} s of a round",
            "targetMinUpstreamRate": {"value": rate, "unit": "kbps"},
            "maxUpstreamRate": {"value": rate, "unit": "kbps"},
        }
        for name, device, rate in zip(names, plan.devices, rates, strict=True)
    ]
    document = {
        "note": POWER,
        "round_s": plan.latency,
        "qosProfiles": profiles,
        "sliceQosProfile": {
            "maxNumOfDevices": len(rates),
            "upStreamRatePerDevice": {"value": max(rates), "unit": "kbps"},
        },
    }
    return json.dumps(document, indent=2) + "\n"


def _profile_name(name: str) -> str:
    """Return a name of letters, digits, dots, underscores and hyphens, 3 to 256 of them, as profiles have."""
    return f"sflam-{re.sub('[^A-Za-z0-9_.-]', '-', name)}"[:256]
