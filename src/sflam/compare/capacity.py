"""How many runs fit beside one another: cores, and memory by the cost model, before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sflam.config import Job
from sflam.cost.measure import named_step
from sflam.cost.memory import whole_memory
from sflam.errors import ModelError
from sflam.planner.cell import training_of
from sflam.registry import own_modules

LIBRARY = 0.7e9
"""Bytes of a process that has loaded torch and transformers, and nothing else."""


def cores() -> int:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def jobs_that_fit(jobs: Sequence[Job]) -> int:
    """Return how many of some runs fit at once: one a core as far as memory goes; one where a GPU does the work."""
    import torch

    from sflam.learn.fit import free_bytes

    if not jobs or "__main__" in own_modules():  # only this process knows what its own program added
        return 1
    if torch.cuda.is_available() and any(job.learn.device != "cpu" for job in jobs):
        return 1
    free = free_bytes(torch.device("cpu"))
    most = cores()
    if free is not None:
        most = min(most, int(free / max(bytes_of(job) for job in jobs)))
    return max(1, min(most, len(jobs)))


def bytes_of(job: Job) -> float:
    """Return the bytes a run needs in one process: library, weights, and what every device of a round trains and keeps.

    A model that cannot be measured counts as the whole memory, so that it runs alone.
    """
    try:
        whole = whole_memory(named_step(job.model.name, training_of(job)))
    except ModelError:
        return float("inf")
    devices = job.fleet.selected or job.fleet.devices
    return LIBRARY + whole.weights + devices * (whole.trained + whole.activations)
