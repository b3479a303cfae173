"""One optimiser per side; every device is a parameter of its own, so a device without a gradient is not updated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sflam.learn.precision import draws_dropout
from sflam.learn.settings import LearnSettings
from sflam.model.segment import Segment

S = TypeVar("S", bound=Segment)


def optimizer(settings: LearnSettings, rows: Sequence[Tensor]) -> torch.optim.Optimizer:
    """Return the optimiser of ``learn.optimizer`` over one leaf per device.

    Never a fused one: a fused step would move rows whose ``grad`` is None by their old momentum.
    """
    common: dict[str, Any] = {
        "lr": settings.lr,
        "weight_decay": settings.weight_decay,
        "foreach": rows[0].is_cuda,
        "fused": False,
    }
    if settings.optimizer == "sgd":
        return torch.optim.SGD(rows, momentum=settings.momentum, **common)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(rows, **common)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return momenta and step counts, keyed by row, for a checkpoint."""
    return {str(row): dict(values) for row, values in optimizer.state_dict()["state"].items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put back what :func:`optimizer_state` returned."""
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(
        {"state": {int(row): values for row, values in state.items()}, "param_groups": groups}
    )


class Side(Generic[S]):
    """One side of the cut: its segment, its settings, and its optimiser from round to round."""

    def __init__(self, segment: S, settings: LearnSettings) -> None:
        self.segment: S = segment.train()
        self.settings = settings
        self.random = draws_dropout(segment)
        self.optimizer = optimizer(settings, segment.stack.rows)

    def open(self) -> None:
        """Begin a round."""
        if self.settings.state == "reset":
            self.optimizer.state.clear()

    def update(self) -> None:
        """Take one optimiser step."""
        self.segment.stack.hand_out(self.settings.clip)
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds."""
        return optimizer_state(self.optimizer)

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        restore_optimizer(self.optimizer, state)
