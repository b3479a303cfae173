"""SCAFFOLD: Karimireddy et al., "Stochastic controlled averaging for federated learning", arXiv 1910.06378, Alg. 1.

    step    y <- y - eta (g_k(y) - c_k + c)
    round   c_k' = c_k - c + (x - y) / (S eta)          (option II, S local steps)
            c <- c + sum_k p_k (c_k' - c_k)             (p_k = 1 / K in the paper; here what a device counts)

With plain gradient steps (x - y) / (S eta) is the mean of g_k - c_k + c, so option II is just the mean of the device's
own gradients over its steps, c_k' = mean g_k. That is how it is computed: it needs no learning rate, so it holds
under a schedule, momentum, clipping and adaptive optimisers too, where (x - y) / (S eta) is no gradient at all. An
adaptive optimiser gets the corrected gradient; the paper's theory is of plain steps (``learn.optimizer = "sgd"``).

c = sum_k p_k c_k holds in every round, also where a part of the devices takes part. c travels down and c_k' - c_k up,
each as large as the adapters of the device; what belongs to its copy of the server's half stays at the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sflam.learn.local.rule import LocalRule
from sflam.model.adapters import State


class Scaffold(LocalRule):
    """Control variates: gradients lose what is a device's own, and gain what is common."""

    acts = travels = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.common: State = {}
        self.own: dict[int, State] = {}
        self._sums: dict[int, State] = {}
        self._steps: dict[int, dict[str, int]] = {}

    def begin(self, start: State) -> None:
        """Forget the gradients of a round that did not end; every control variate begins at zero."""
        self.common = {n: torch.zeros_like(t) for n, t in start.items()} | self.common
        self._sums, self._steps = {}, {}

    def amend(self, device: int, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Add c - c_k; remember the gradients as they were."""
        own = self.own.get(device, {})
        sums, steps = self._sums.setdefault(device, {}), self._steps.setdefault(device, {})
        for name, gradient in gradients.items():
            sums[name] = sums[name] + gradient if name in sums else gradient.clone()
            steps[name] = steps.get(name, 0) + 1
            gradient += self.common[name].to(gradient)
            if name in own:
                gradient -= own[name].to(gradient)

    def down(self, device: int) -> State:
        """Return c."""
        return self.common

    def end(self, devices: Sequence[int]) -> dict[int, State]:
        """Return device -> c_k' - c_k, and move c; what a device did not train in the round stays as it is."""
        changes: dict[int, State] = {}
        for device in sorted(devices):
            own, sums = self.own.setdefault(device, {}), self._sums.get(device, {})
            changes[device] = {}
            for name, total in sums.items():
                found = (total / self._steps[device][name]).to(self.common[name])
                changes[device][name] = found - own.get(name, torch.zeros_like(found))
                own[name] = found
        for device, change in changes.items():
            for name, moved in change.items():
                self.common[name] = self.common[name] + self.shares[device] * moved
        self._sums, self._steps = {}, {}
        return changes

    def state(self) -> dict[str, Any]:
        """Return the control variates."""
        return {"common": dict(self.common), "own": {device: dict(own) for device, own in self.own.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self.common = dict(state["common"])
        self.own = {device: dict(own) for device, own in state["own"].items()}
