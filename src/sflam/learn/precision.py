"""The arithmetic of a pass: mixed precision where asked for, one dropout mask per (round, step, device, side)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


def arithmetic(module: nn.Module) -> AbstractContextManager[object]:
    """Autocast to bfloat16 when the frozen weights are kept in it; adapters and losses stay float32."""
    weight = next(module.parameters(), None)
    if weight is not None and weight.dtype == torch.bfloat16:
        return torch.autocast(weight.device.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def reseeded(seed: int | None) -> Iterator[None]:
    """Draw dropout masks from ``seed`` inside, leaving the generators outside as they were; None does nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def draws_dropout(module: nn.Module) -> bool:
    """Whether the module drops anything at random; attentions and drop paths keep their probability as a number."""
    return any(
        (isinstance(inner, nn.Dropout) and inner.p > 0)
        or any("drop" in name and isinstance(p, float) and p > 0 for name, p in vars(inner).items())
        for inner in module.modules()
    )
