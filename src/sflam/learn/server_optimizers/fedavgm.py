"""FedAvgM: Hsu et al., "Measuring the effects of non-identical data distribution", arXiv 1909.06335, section 4.3.

v <- beta v + Delta, x <- x + eta v, beta ``learn.server_momentum``, eta ``learn.server_lr`` (1 in the paper).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sflam.learn.server_optimizers.optimizer import ServerOptimizer
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import State


class FedAvgM(ServerOptimizer):
    """Momentum, in float64."""

    def __init__(self, learn: LearnSettings) -> None:
        super().__init__(learn)
        self._velocity: State = {}

    def step(self, start: Mapping[str, Tensor], averaged: State) -> State:
        """Return x + eta v."""
        moved: State = {}
        for name, average in averaged.items():
            before = start[name].to(average.device).double()
            delta = average.double() - before
            old = self._velocity.get(name)
            self._velocity[name] = delta if old is None else self.momentum * old.to(delta) + delta
            moved[name] = (before + self.lr * self._velocity[name]).to(average.dtype)
        return moved

    def state(self) -> dict[str, Any]:
        """Return v."""
        return {"velocity": dict(self._velocity)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put v back."""
        self._velocity = dict(state["velocity"])
