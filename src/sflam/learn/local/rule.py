"""The hook for a device's own learning: one object per fleet, whatever holds a device's numbers.

A device's trained numbers go by peft's names, on its half, in its own copy of the server's, or in a whole model: a
rule acts on each name alike, and does not know where it is. What all devices train together in a shared trunk drifts
from none of them, so no rule acts there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sflam.learn.settings import LearnSettings
from sflam.model.adapters import State


class LocalRule:
    """What devices add to their learning; this one adds nothing.

    Args:
        learn: the numbers of the rule.
        shares: device -> p_k, what it counts among all devices of the fleet; they sum to one.
        labels: device -> [n_k] the labels it holds, of as many ``classes``; None where there are none.
        classes: C.
    """

    acts = False
    """Whether it changes gradients or ends a round."""
    calibrates = False
    """Whether it changes the logits that the loss is of."""
    travels = False
    """Whether it sends as much as the adapters, beside them, both ways."""

    def __init__(
        self,
        learn: LearnSettings,
        shares: Mapping[int, float],
        labels: Mapping[int, Tensor] | None = None,
        classes: int = 0,
    ) -> None:
        self.learn, self.shares = learn, shares

    def begin(self, start: State) -> None:
        """Begin a round from the global adapters."""

    def amend(self, device: int, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Change a device's gradients in place, before they are clipped and its optimiser takes a step.

        Args:
            device: its index.
            values: name -> its numbers before the step.
            gradients: name -> their gradients; the names of one side, or all.
        """

    def calibrated(self, logits: Tensor, devices: Sequence[int], counts: Sequence[int]) -> Tensor:
        """Return the logits [R,C] that the loss is of; ``counts`` are the rows of each of the ``devices``."""
        return logits

    def down(self, device: int) -> State:
        """Return what a device receives beside the global adapters, by name, where the rule travels."""
        return {}

    def end(self, devices: Sequence[int]) -> dict[int, State]:
        """End a round of the devices that delivered; return device -> what it sends beside its adapters."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
