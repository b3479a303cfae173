"""Input of problem B with which no plan can be, in the user's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sflam.allocate.cell.limits import devices, wrong_devices
from sflam.units import human_bytes

if TYPE_CHECKING:
    from sflam.allocate.edge.problem import EdgeProblem


def wrong_edge(problem: EdgeProblem) -> list[str]:
    """Return a sentence per thing that is wrong; the first kind of them only."""
    return _wrong_network(problem) or _wrong_request(problem) or _wrong_splits(problem)


def _wrong_network(problem: EdgeProblem) -> list[str]:
    network = problem.network
    if not len(network) or not problem.servers:
        return [
            f"the network has {len(network)} users and {problem.servers} servers; give at least one of each"
        ]
    found = wrong_devices(network)
    bad = np.asarray(~((network.gain >= 0) & np.isfinite(network.gain)).all(axis=0))
    if bad.any():
        found.append(f"gain of {devices(network, bad)} is not a number of 0 or more at every server")
    elif (deaf := np.asarray(~(network.gain > 0).any(axis=0))).any():
        found.append(
            f"{devices(network, deaf)} can be reached by no server (every gain is 0); move a server or leave it out"
        )
    for name in ("bandwidth", "server_clock", "server_flops_per_cycle"):
        values = getattr(network, name)
        if (wrong := ~((values > 0) & np.isfinite(values))).any():
            index = int(np.argmax(wrong))
            found.append(f"{name} of server {index} is {values[index]}; it must be positive and finite")
    if (wrong := ~((network.server_kappa >= 0) & np.isfinite(network.server_kappa))).any():
        found.append(
            f"server_kappa of server {int(np.argmax(wrong))} is {network.server_kappa[wrong][0]}; it must be 0 or more"
        )
    if not 0 < network.noise < np.inf:
        found.append(f"noise is {network.noise}; it must be positive and finite")
    return found


def _wrong_request(problem: EdgeProblem) -> list[str]:
    found = []
    for name in ("layer_flops", "payload", "samples"):
        values = np.asarray(getattr(problem, name), float)
        if values.shape != (len(problem),):
            found.append(f"{name} has shape {list(values.shape)}; give one per user ({len(problem)})")
        elif (wrong := ~((values > 0) & np.isfinite(values))).any():
            names = devices(problem.network, wrong)
            found.append(f"{name} of {names} is {values[wrong][0]}; it must be positive and finite")
    if problem.memory is not None and problem.memory.shape != (len(problem), problem.layers + 1):
        found.append(f"memory has shape {list(problem.memory.shape)}; give [users, layers + 1]")
    if not 0 < problem.time_weight < np.inf:
        found.append(
            f"time_weight is {problem.time_weight}; it must be positive: without it, sending for ever costs least"
        )
    for name in ("energy_weight", "stability_weight", "eigenvalue", "penalty"):
        if not 0 <= getattr(problem, name) < np.inf:
            found.append(f"{name} is {getattr(problem, name)}; it must be 0 or more and finite")
    if not 0 < problem.lipschitz < np.inf:
        found.append(f"lipschitz is {problem.lipschitz}; it must be positive and finite")
    if not problem.transmit_delay:
        found.append(
            "transmit_delay is off, as printed in 2409.20247: the energy of sending then falls for ever as the power "
            "goes to 0, and no plan attains the optimum; leave it on"
        )
    return found


def _wrong_splits(problem: EdgeProblem) -> list[str]:
    if problem.layers < 1:
        return [f"the model has {problem.layers} layers; it needs at least 1"]
    most = problem.layers if problem.most_split is None else problem.most_split
    if not 1 <= problem.least_split <= most <= problem.layers:
        return [
            f"splits {problem.least_split} to {most} of a model with {problem.layers} layers; splits are 1 to "
            f"{problem.layers}, the smallest first"
        ]
    full = np.asarray(~problem.allowed.any(axis=1))
    if full.any() and problem.memory is not None:
        index = int(np.argmax(full))
        need = human_bytes(float(problem.memory[index, problem.least_split]))
        have = human_bytes(float(problem.network.memory[index]))
        return [
            f"no split fits the memory of {devices(problem.network, full)}: {problem.least_split} layers need {need}, "
            f"its limit is {have}; allow fewer layers or give it more memory"
        ]
    if problem.eigenvalue == 0 and problem.stability_weight and problem.least_split == problem.layers:
        return [
            "eigenvalue is 0 and every split is the whole model, whose bound is then infinite; allow fewer layers"
        ]
    return []
