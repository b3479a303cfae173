"""Measured times of this machine in place of modelled ones; virtual time then depends on the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sflam.learn.steps import Steps
from sflam.network.network import Network
from sflam.records.charge import Calibration
from sflam.simulate.clock import RoundCost
from sflam.simulate.step_times import StepCost
from sflam.workload import Workload


def calibrated(
    workload: Workload, costs: Sequence[StepCost], network: Network, *, bodies: bool = True
) -> Workload:
    """Return the workload with work, at the measured cuts, that takes as long as measured, and with whole bodies.

    This machine stands for the fastest device at its highest clock, and for the server: slower devices take as much
    longer as their clocks and widths give.

    Args:
        workload: as modelled.
        costs: as measured, at least at every cut that is used.
        network: of all devices.
        bodies: whether bodies count whole by what was measured; not where they are counted by what is drawn.
    """
    ahead, behind = speeds(network)
    work = {
        name: list(getattr(workload, name))
        for name in ("device_forward", "device_backward", "server_forward", "server_backward")
    }
    for cost in costs:
        for side, flop in (("device", cost.device_s * ahead), ("server", cost.server_s * behind)):
            both = work[f"{side}_forward"][cost.cut] + work[f"{side}_backward"][cost.cut]
            if both > 0:
                work[f"{side}_forward"][cost.cut] *= flop / both
                work[f"{side}_backward"][cost.cut] *= flop / both
            else:  # an embedding that is looked up counts no FLOP, but takes time
                work[f"{side}_forward"][cost.cut] = flop
    changed: dict[str, Any] = {name: tuple(values) for name, values in work.items()}
    if not bodies:
        return replace(workload, **changed)
    return replace(
        workload,
        **changed,
        extra_up=max(cost.extra_up for cost in costs),
        extra_down=max(cost.extra_down for cost in costs),
        extra_adapter=max(cost.extra_adapter for cost in costs),
    )


def speeds(network: Network) -> tuple[float, float]:
    """Return the FLOP/s of the fastest device and of the server, at their highest clocks."""
    device = float((network.max_clock * network.flops_per_cycle).max())
    return device, float(network.server_clock[0] * network.server_flops_per_cycle[0])


def compared(
    costs: Sequence[StepCost],
    modelled: Workload,
    network: Network,
    cuts: Sequence[int],
    steps: Steps,
    paid: Sequence[RoundCost],
) -> Calibration:
    """Return measured and modelled numbers of a round, side by side.

    Args:
        costs: as measured.
        modelled: the workload as modelled.
        network: of all devices.
        cuts: of the devices that took part.
        steps: what was really sent.
        paid: the costs of the plans as modelled.
    """
    at = {cost.cut: cost for cost in costs}
    ahead, behind = speeds(network)
    device = [modelled.device_forward[cut] + modelled.device_backward[cut] for cut in cuts]
    server = [modelled.server_forward[cut] + modelled.server_backward[cut] for cut in cuts]
    return Calibration(
        device_s=float(np.mean([at[cut].device_s for cut in cuts])),
        modelled_device_s=float(np.mean(device)) / ahead,
        server_s=float(np.mean([at[cut].server_s for cut in cuts])),
        modelled_server_s=float(np.mean(server)) / behind,
        up_bits=8 * sum(steps.sent.values()),
        modelled_up_bits=sum(steps.payload_up.values()),
        modelled_s=float(sum(cost.seconds for cost in paid)),
        modelled_j=float(sum(cost.charged_j for cost in paid)),
    )
