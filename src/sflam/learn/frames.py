"""What devices send to the server in a step and what each gets back; a frame in parts, and the answer to all of them.

B rows of a frame, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sflam.learn.grouping import Rows as GroupRows
from sflam.model.families import CAUSAL
from sflam.model.loss import target_count


@dataclass(frozen=True, eq=False)
class Frame:
    """What one device sent: its activations at its cut.

    Attributes:
        device: index of the device.
        cut: blocks the device keeps.
        hidden: [B,T,d].
        lengths: [B] valid tokens of each row; None when every row is full.
        labels: [B], or [B,T] with ``IGNORED`` on padding; None where they stay on the device.
    """

    device: int
    cut: int
    hidden: Tensor
    lengths: Tensor | None
    labels: Tensor | None

    def rows(self, at: GroupRows) -> Frame:
        """Return the frame of some of its rows."""
        if len(at) == len(self.hidden):
            return self
        index = torch.from_numpy(at).to(self.hidden.device)
        lengths = None if self.lengths is None else self.lengths[index]
        width = self.hidden.shape[1] if lengths is None else int(lengths.max())
        labels = None if self.labels is None else self.labels[index]
        labels = labels if labels is None or labels.ndim == 1 else labels[:, :width]
        return Frame(self.device, self.cut, self.hidden[index][:, :width], lengths, labels)

    def targets(self, task: str) -> int:
        """Return what its loss is a mean of, labels here or not: rows, or tokens that are predicted."""
        if self.labels is not None:
            return target_count(self.labels)
        rows, width = self.hidden.shape[:2]
        tokens = rows * width if self.lengths is None else int(self.lengths.sum())
        return tokens - rows if task == CAUSAL else rows


@dataclass(frozen=True, eq=False)
class Answer:
    """What one device gets back: its loss, and the gradient [B,T,d] of its activations where it trains any."""

    device: int
    loss: float
    gradient: Tensor | None


def assembled(task: str, frame: Frame, pieces: Sequence[tuple[GroupRows, Answer]]) -> Answer:
    """Return the answer to a frame from those to its rows in each group: its mean loss, and that loss's gradient."""
    if len(pieces) == 1:
        return pieces[0][1]
    loss, gradient = 0.0, None
    for at, answer in pieces:
        share = frame.rows(at).targets(task) / frame.targets(task)
        loss += answer.loss * share
        if answer.gradient is not None:
            if gradient is None:
                gradient = answer.gradient.new_zeros(frame.hidden.shape)
            gradient[torch.from_numpy(at).to(gradient.device), : answer.gradient.shape[1]] = (
                answer.gradient * share
            )
    return Answer(frame.device, loss, gradient)


def joined(frame: Frame, pieces: Sequence[tuple[GroupRows, Answer]]) -> Answer:
    """Return the answer to a frame from those to its rows in each chunk, which are parts of its mean loss."""
    if len(pieces) == 1:
        return pieces[0][1]
    gradients = [(at, answer.gradient) for at, answer in pieces if answer.gradient is not None]
    gradient = rows_joined(frame, gradients) if gradients else None
    return Answer(frame.device, sum(answer.loss for _, answer in pieces), gradient)


def rows_joined(frame: Frame, pieces: Sequence[tuple[GroupRows, Tensor]]) -> Tensor:
    """Return [B,T,d] of a frame from [b,t,d] of some of its rows each, t <= T."""
    if len(pieces) == 1:
        return pieces[0][1]
    every = pieces[0][1].new_zeros(frame.hidden.shape)
    for at, part in pieces:
        every[torch.from_numpy(at).to(every.device), : part.shape[1]] = part
    return every
