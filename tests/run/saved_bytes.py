"""What autograd keeps for the backward, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def saved_bytes(run: Callable[[], object], weights: Iterable[Tensor]) -> int:
    """Return the bytes of all storages that ``run`` saves for a backward, each once, but for ``weights``."""
    own = {weight.untyped_storage().data_ptr() for weight in weights}
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(tensor.untyped_storage().nbytes() for place, tensor in seen.items() if place not in own)
