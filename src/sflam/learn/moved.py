"""How far devices moved what they trained in a round, which is what a scaled or a broken update shows in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sflam.model.adapters import State


@torch.no_grad()
def moved(start: Mapping[str, Tensor], states: Mapping[int, State]) -> dict[int, float]:
    """Return device -> the Euclidean norm of all numbers that it trained less those of the round's beginning.

    Args:
        start: the global adapters of the round's beginning.
        states: device -> what it trained, by name, as it arrived.
    """
    found = {}
    laid: dict[tuple[str, ...], Tensor] = {}
    for device, state in states.items():
        names = tuple(state)
        if names not in laid:
            laid[names] = torch.cat([start[name].flatten() for name in names]) if names else torch.zeros(0)
        own = torch.cat([state[name].flatten() for name in names]) if names else laid[names]
        found[device] = float(torch.linalg.vector_norm(own - laid[names], dtype=torch.float64))
    return found
