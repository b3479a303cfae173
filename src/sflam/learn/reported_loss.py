"""The mean loss that a device with labels at home reports: of losses that are clipped, with noise on their sum.

    m = 1 / B (sum over the samples i of a step of min(l_i, C) + s C z),  z standard normal

What a sample adds is between 0 and C, so another in its place moves the sum by C at most. Gradients are those of the
losses as they are.

R rows of a pass, B of a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sflam.codec.guard import Guard


class ReportedLoss:
    """What devices of one process do to the losses of their steps.

    Args:
        guard: its clip and its noise.
    """

    def __init__(self, guard: Guard) -> None:
        assert guard.moves_losses
        self.guard = guard

    def at_attempt(self, attempt: int) -> None:
        """Draw noise as at this ``attempt`` at a round."""
        self.guard = replace(self.guard, attempt=attempt)

    def means(self, losses: Tensor, counts: Sequence[int], seeds: Sequence[int]) -> list[float]:
        """Return the mean that each device of a pass reports.

        Args:
            losses: [R] of the samples, device by device.
            counts: rows of each device.
            seeds: of each device's step, which are those of no other step.
        """
        return [
            self.guard.mean_loss(own.cpu().numpy(), seed)
            for own, seed in zip(torch.split(losses, list(counts)), seeds, strict=True)
        ]
