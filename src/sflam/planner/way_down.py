"""The way down to devices: how long answers take, where that is counted. K devices."""

from __future__ import annotations

import numpy as np

from sflam.allocate.cell.problem import Problem
from sflam.config import Job
from sflam.network.network import Floats, Network


def with_way_down(job: Job, problem: Problem) -> Problem:
    """Return the problem with the time that gradients need to come down, where it is counted."""
    network = problem.network
    rate, latency = down_rates(job, network), exchange_seconds(problem)
    if np.isinf(rate).all() and not latency.any():
        return problem
    a_step = problem.down_bits / problem.each("local_steps")
    seconds = a_step / rate
    return problem.change(delay=seconds + latency, receiving=seconds)


def down_rates(job: Job, network: Network) -> Floats:
    """Return [K] bit/s of the way down to each device; inf where it takes no time."""
    every = job.network.downlink_mbps * 1e6 or np.inf
    found: Floats = np.where(np.isinf(network.down_rate), every, network.down_rate)
    return found


def exchange_seconds(problem: Problem) -> Floats:
    """Return [K] s that the exchanges of a mini-batch take beside their bytes and the server."""
    counts = np.array([workload.exchanges for workload in problem.workloads])
    found: Floats = counts * problem.network.exchange_s
    return found
