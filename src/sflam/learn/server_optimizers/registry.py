"""The server's optimisers, by the names of ``learn.server_optimizer``."""

from __future__ import annotations

from sflam.learn.server_optimizers.fedavgm import FedAvgM
from sflam.learn.server_optimizers.fedopt import FedAdam, FedYogi
from sflam.learn.server_optimizers.optimizer import ServerOptimizer
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.practice import SERVER_OPTIMIZERS

OPTIMIZERS: dict[str, type[ServerOptimizer]] = {
    "none": ServerOptimizer,
    "momentum": FedAvgM,
    "adam": FedAdam,
    "yogi": FedYogi,
}

assert tuple(OPTIMIZERS) == SERVER_OPTIMIZERS, "practice.py names exactly the optimisers that exist"


def server_optimizer(learn: LearnSettings) -> ServerOptimizer:
    """Return the optimiser of ``learn.server_optimizer``."""
    return OPTIMIZERS[learn.practice.server_optimizer](learn)
