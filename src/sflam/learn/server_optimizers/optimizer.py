"""The hook for the average: once a round the server moves the global adapters x by Delta, the average less x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sflam.learn.settings import LearnSettings
from sflam.model.adapters import State


class ServerOptimizer:
    """Moves the global adapters; this one takes the average as it is.

    Args:
        learn: the numbers of the optimiser.
    """

    default_lr = 1.0
    """Learning rate where ``learn.server_lr`` is 0."""

    def __init__(self, learn: LearnSettings) -> None:
        self.lr = learn.server_lr or self.default_lr
        self.momentum, self.beta2, self.epsilon = (
            learn.server_momentum,
            learn.server_beta2,
            learn.server_epsilon,
        )

    def step(self, start: Mapping[str, Tensor], averaged: State) -> State:
        """Return the new global adapters.

        Args:
            start: x, where the round began.
            averaged: the average of what devices trained, name -> tensor.
        """
        return averaged

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
