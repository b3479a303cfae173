"""The exchanges of a step, and the seed of the rounding noise of each: one for every place in a run."""

from __future__ import annotations

from sflam.seeds import derive

UP, DOWN, HEAD_DOWN, HEAD_UP, ADAPTERS, SAMPLES, LOSS = range(7)
"""Legs of a step: activations up, their gradient down; with labels at home, in between, the activations after the
server's last block down and the gradient of the device's loss for them up. And once a round, what was trained, up.
What a device sums over the samples of a step, gradients and losses, crosses by none, and has noise as if it did."""

UPWARD = {UP, HEAD_UP}
GRADIENTS = {DOWN, HEAD_UP}
"""Legs for which a quantizer may remember what it left out: gradients add up over steps, activations do not."""


def noise_seed(seed: int, round: int, step: int, device: int, leg: int) -> int:
    """Return the seed of the rounding noise of one exchange of the run ``seed``."""
    return derive(seed, "quantizer", round, step, device, leg)
