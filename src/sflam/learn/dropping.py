"""Tokens that stay on a device: a gather of what goes up, and a scatter of the gradient that comes back.

The device's blocks see all tokens of a sample. Behind the cut the sample is what was sent, so the gradient of the rest
is zero. B rows, T tokens of the longest, M tokens sent of the row with most, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sflam.codec.token_drop import TokenDrop
from sflam.learn.examples import Minibatch


class Dropping:
    """What devices of one process send of the tokens of a step.

    Args:
        drop: how they are drawn.
        last: whether the head reads the last valid token, not the first.
    """

    def __init__(self, drop: TokenDrop, *, last: bool) -> None:
        self.drop, self.last = drop, last
        self._step: dict[int, tuple[Tensor, int]] = {}
        """Device -> the places [B,M] of the tokens that it sent in the step, T in place of none, and T."""

    def crossing(self, batch: Minibatch, width: int) -> Minibatch:
        """Return a mini-batch of T = ``width`` tokens with the lengths that its server sees."""
        return replace(batch, lengths=self._lengths(batch, self.drop.counts(batch.counts(width)).tolist()))

    def sent(
        self, hidden: Mapping[int, Tensor], batches: Mapping[int, Minibatch], seeds: Mapping[int, int]
    ) -> tuple[dict[int, Tensor], dict[int, Minibatch]]:
        """Return every device's activations [B,M,d] that go up, and its mini-batch as its server sees it.

        Args:
            hidden: device -> [B,T,d] at its cut.
            batches: device -> its mini-batch.
            seeds: device -> seed of this step.
        """
        self._step = {}
        out: dict[int, Tensor] = {}
        for device, own in hidden.items():
            batch, width = batches[device], own.shape[1]
            drawn = self.drop.places(batch.counts(width), seeds[device], batch.ids, last=self.last)
            places = torch.from_numpy(drawn).to(own.device)
            at = places.clamp(max=width - 1)[:, :, None].expand(-1, -1, own.shape[2])
            out[device] = own.gather(1, at)
            self._step[device] = places, width
        return out, {device: self.crossing(batches[device], own.shape[1]) for device, own in hidden.items()}

    def spread(self, gradients: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Return device -> [B,T,d] from the gradient [B,M,d] of what it sent: zero for the rest."""
        out: dict[int, Tensor] = {}
        for device, gradient in gradients.items():
            places, width = self._step[device]
            at = places[:, :, None].expand(-1, -1, gradient.shape[2])
            # One place beyond the last takes what stands for no token.
            whole = gradient.new_zeros(len(gradient), width + 1, gradient.shape[2])
            out[device] = whole.scatter_(1, at, gradient)[:, :width]
        return out

    def _lengths(self, batch: Minibatch, sent: Sequence[int]) -> Tensor | None:
        """Return the lengths [B] of what goes up; None where all are alike."""
        if len(set(sent)) == 1:
            return None
        return torch.tensor(sent, device=batch.labels.device)
