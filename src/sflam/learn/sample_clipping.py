"""DP-SGD of what devices train: the gradient of every sample clipped, their sum made noisy, in every step.

    g = 1 / E (sum over the samples i of a step of g_i min(1, C / |g_i|) + s C z),  z standard normal

(Abadi et al., Deep learning with differential privacy, CCS 2016, algorithm 1), with g_i the gradient of sample i's own
loss in all that the device trains: its blocks before the cut and, with labels at home, its head. What comes back from
the server has the scale of a mean over the rows that came, or that are expected; that is undone first, and of a text
the mean is over its own tokens, since a mean over those of all would let one text change what the others count. E is
the rows that came or, with Poisson draws, those that are expected.

The gradient at the cut is taken as it comes: g_i depends on other samples only through the trunk's weights, and what
the device had learnt, with noise, before.

R rows of a pass, B of a device, P trained values of a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sflam.codec.guard import Guard
from sflam.codec.legs import SAMPLES
from sflam.learn.examples import Minibatch
from sflam.model.loss import IGNORED
from sflam.model.stack import AdapterStack


@dataclass(eq=False)
class _Step:
    """What is known of a device's step.

    Attributes:
        place: what tells the step from all others of the run.
        scale: [B] by which the gradient of the mean over the step's rows becomes that of each row's own loss.
        found: [B, P] gradients of the samples so far; None before the first.
    """

    place: int
    scale: Tensor
    found: Tensor | None = None


class SampleClipping:
    """What devices of one process do to the gradients of their steps.

    Args:
        guard: its clip and its noise.

    Attributes:
        expected: device -> rows that its losses count, whatever came; those that came where it is not here.
    """

    def __init__(self, guard: Guard) -> None:
        assert guard.moves_samples
        self.guard = guard
        self.expected: Mapping[int, int] = {}
        self._steps: dict[int, _Step] = {}

    def at_attempt(self, attempt: int) -> None:
        """Draw noise as at this ``attempt`` at a round."""
        self.guard = replace(self.guard, attempt=attempt)

    def begin(self, batches: Mapping[int, Minibatch], seeds: Mapping[int, int]) -> None:
        """Begin a step.

        Args:
            batches: device -> its mini-batch.
            seeds: device -> the seed of its step, which is that of no other step.
        """
        self._steps = {d: _Step(seeds[d], _scale(batch.labels)) for d, batch in batches.items()}

    def add(
        self, devices: Sequence[int], counts: Sequence[int], gradients: Tensor | None, *, returned: bool
    ) -> None:
        """Add what one backward left.

        Args:
            devices: of the pass, in order.
            counts: rows of each.
            gradients: [R, P]; None where nothing that is trained was in it.
            returned: from the gradient that a server sent back, which counts the rows that are expected.
        """
        if gradients is None:
            return
        for device, own in zip(devices, torch.split(gradients, list(counts)), strict=True):
            step = self._steps[device]
            rows = len(own)
            times = self.expected.get(device, rows) / rows if returned else 1.0
            own = own * (step.scale * times).to(own)[:, None]
            step.found = own if step.found is None else step.found + own

    def give(self, stack: AdapterStack, device: int, columns: Tensor) -> None:
        """Write the noisy mean of a device's step into its row of ``stack.grads``.

        Args:
            stack: of the devices.
            device: whose row.
            columns: int64 [Q], those of the P values that it trains.
        """
        step = self._steps.pop(device)
        rows = len(step.scale)
        total = torch.zeros(len(columns), dtype=torch.float64, device=stack.grads.device)
        if step.found is not None:
            every = step.found[:, columns].double()
            norms = torch.linalg.vector_norm(every, dim=1)
            total = (self.guard.clips[SAMPLES] / norms).clamp(max=1.0) @ every
        noise = torch.from_numpy(self.guard.noise_of_sum(len(columns), step.place)).to(total)
        row = torch.zeros_like(stack.grads[0])
        row[columns] = ((total + noise) / self.expected.get(device, rows)).to(row)
        stack.grads[stack.place(device)] = row


def _scale(labels: Tensor) -> Tensor:
    """Return [B]: targets of all rows over those of each, for labels [B] or, of texts to be continued, [B,T]."""
    if labels.ndim == 1:
        return torch.full((len(labels),), float(len(labels)), dtype=torch.float64)
    own = (labels[:, 1:] != IGNORED).sum(1).double()
    return own.sum() / own.clamp(min=1.0)
