"""What is not finite must not be learnt: who spoils a step, and whether a tensor is finite."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


class Spoiled(Exception):
    """Of what some devices sent nothing finite can be learnt; the step has changed nothing.

    Attributes:
        devices: which.
    """

    def __init__(self, devices: Iterable[int]) -> None:
        super().__init__()
        self.devices = tuple(devices)


def is_finite(tensor: Tensor | None) -> bool:
    """Return whether a tensor, if there is one, holds neither NaN nor infinity."""
    return tensor is None or bool(tensor.isfinite().all())
