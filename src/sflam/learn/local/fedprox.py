"""FedProx: Li et al., "Federated optimization in heterogeneous networks", arXiv 1812.06127, equation 2.

A device minimises F_k(w) + mu / 2 ||w - w_t||^2, w_t where the round began: its gradient gains mu (w - w_t).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sflam.learn.local.rule import LocalRule
from sflam.model.adapters import State


class FedProx(LocalRule):
    """A pull towards where the round began, of strength ``learn.prox``."""

    acts = True

    def begin(self, start: State) -> None:
        """Remember where the round begins."""
        self._start = start

    def amend(self, device: int, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Add mu (w - w_t)."""
        for name, gradient in gradients.items():
            gradient += self.learn.prox * (values[name] - self._start[name].to(values[name]))
