"""FedAdam and FedYogi: Reddi et al., "Adaptive federated optimization", arXiv 2003.00295, Algorithm 2.

    m <- beta_1 m + (1 - beta_1) Delta
    v <- v - (1 - beta_2) Delta^2 sign(v - Delta^2)     (FedYogi)
    v <- beta_2 v + (1 - beta_2) Delta^2                (FedAdam)
    x <- x + eta m / (sqrt(v) + tau)

m begins at 0 and v at tau^2, as the paper asks, and neither is corrected for its beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sflam.learn.server_optimizers.optimizer import ServerOptimizer
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import State


class FedAdam(ServerOptimizer):
    """Adam over rounds, in float64."""

    default_lr = 0.01

    def __init__(self, learn: LearnSettings) -> None:
        super().__init__(learn)
        self._first: State = {}
        self._second: State = {}

    def step(self, start: Mapping[str, Tensor], averaged: State) -> State:
        """Return x + eta m / (sqrt(v) + tau)."""
        moved: State = {}
        for name, average in averaged.items():
            before = start[name].to(average.device).double()
            delta = average.double() - before
            first = self._first.get(name, torch.zeros_like(delta)).to(delta)
            second = self._second.get(name, torch.full_like(delta, self.epsilon**2)).to(delta)
            self._first[name] = self.momentum * first + (1 - self.momentum) * delta
            self._second[name] = self._moment(second, delta.square())
            step = self._first[name] / (self._second[name].sqrt() + self.epsilon)
            moved[name] = (before + self.lr * step).to(average.dtype)
        return moved

    def _moment(self, second: Tensor, square: Tensor) -> Tensor:
        """Return the new v from the old one and Delta^2."""
        return self.beta2 * second + (1 - self.beta2) * square

    def state(self) -> dict[str, Any]:
        """Return m and v."""
        return {"first": dict(self._first), "second": dict(self._second)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put m and v back."""
        self._first, self._second = dict(state["first"]), dict(state["second"])


class FedYogi(FedAdam):
    """Yogi over rounds: v follows Delta^2 by its size alone, so it forgets slowly where gradients are rare."""

    def _moment(self, second: Tensor, square: Tensor) -> Tensor:
        return second - (1 - self.beta2) * square * torch.sign(second - square)
