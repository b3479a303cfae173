"""The server's side of a step, for many devices at once.

SFL-V1 keeps one copy of the server's adapters per device; all frames of a step share one forward and one
backward, and no loop runs over devices. SFL-V2 keeps one copy for all: ``batched`` takes one step on the summed
gradients, ``sequential`` steps frame after frame.

B rows of a frame, R rows of a step, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sflam.learn.examples import join_lengths
from sflam.learn.optimizers import optimizer, optimizer_state, restore_optimizer
from sflam.learn.precision import arithmetic, draws_dropout, reseeded
from sflam.learn.settings import LearnSettings
from sflam.model.lora import Rows
from sflam.model.loss import IGNORED, group_losses
from sflam.model.split import Arrival, ServerSegment
from sflam.seeds import derive


@dataclass(frozen=True, eq=False)
class Frame:
    """What one device sent: its activations at its cut.

    Attributes:
        device: index of the device.
        cut: blocks the device keeps.
        hidden: [B,T,d].
        lengths: [B] valid tokens of each row; None when every row is full.
        labels: [B], or [B,T] with ``IGNORED`` on padding.
    """

    device: int
    cut: int
    hidden: Tensor
    lengths: Tensor | None
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Answer:
    """What one device gets back: its loss, and the gradient [B,T,d] of its activations where it trains any."""

    device: int
    loss: float
    gradient: Tensor | None


class Trunk:
    """The server segment, its optimiser, and one step over the frames of many devices.

    Args:
        segment: the server's blocks and head; one copy per device (SFL-V1) or a single one (SFL-V2).
        task: what the loss is, a key of ``Family.tasks``.
        settings: optimiser, clipping, and the order of SFL-V2's updates.
        shared: whether the single copy serves every device.
    """

    def __init__(
        self, segment: ServerSegment, task: str, settings: LearnSettings, *, shared: bool = False
    ) -> None:
        self.segment = segment.train()
        self.task = task
        self.settings = settings
        self.shared = shared
        self.random = draws_dropout(segment)
        self.optimizer = optimizer(settings, segment.stack.rows)

    def copy_of(self, device: int) -> int:
        """Return the row of the stack that serves ``device``."""
        return 0 if self.shared else device

    def step(self, frames: Sequence[Frame], seed: int) -> list[Answer]:
        """Train on one frame per device and answer each, in the order given.

        Args:
            frames: at least one; a device that has none this step does not move.
            seed: seed of this step's dropout.
        """
        if self.shared and self.settings.server_update == "sequential":
            return [
                answer for frame in frames for answer in self._step([frame], derive(seed, "", frame.device))
            ]
        answers = {answer.device: answer for answer in self._step(sorted(frames, key=lambda f: f.cut), seed)}
        return [answers[frame.device] for frame in frames]

    def _step(self, frames: Sequence[Frame], seed: int) -> list[Answer]:
        """One forward, one backward, one optimiser step for ``frames``, sorted by cut."""
        stack = self.segment.stack
        width = max(frame.hidden.shape[1] for frame in frames)
        arrivals, leaves, lengths = self._arrivals(frames, width)
        labels = torch.cat([_padded_labels(frame.labels, width) for frame in frames])
        with arithmetic(self.segment), reseeded(seed if self.random else None):
            logits = self.segment(arrivals, lengths)
            losses = group_losses(self.task, logits, labels, tuple(len(frame.hidden) for frame in frames))
        stack.clear()
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        # The sum of per-device means keeps each device's own loss scale: its gradient is that of its mean.
        gradients = iter(stack.backward(losses.sum(), inputs=wanted))
        stack.hand_out(sorted({self.copy_of(frame.device) for frame in frames}), self.settings.clip)
        self.optimizer.step()
        values = losses.tolist()
        return [
            Answer(frame.device, value, next(gradients) if leaf.requires_grad else None)
            for frame, leaf, value in zip(frames, leaves, values, strict=True)
        ]

    def _arrivals(
        self, frames: Sequence[Frame], width: int
    ) -> tuple[list[Arrival], list[Tensor], Tensor | None]:
        """Group frames by cut; return the arrivals, the leaf of each frame, and the lengths of all rows."""
        # Nothing is trained below cut 0, so no gradient is wanted there.
        dtype = self.segment.stack.values.dtype
        leaves = [frame.hidden.detach().to(dtype).requires_grad_(frame.cut > 0) for frame in frames]
        arrivals: list[Arrival] = []
        seen: list[Frame] = []
        for cut, members in groupby(zip(frames, leaves, strict=True), key=lambda pair: pair[0].cut):
            entering = []
            for frame, leaf in members:
                seen.append(frame)
                entering.append(F.pad(leaf, (0, 0, 0, width - leaf.shape[1])))
            rows = Rows.of([self.copy_of(f.device) for f in seen], [len(f.hidden) for f in seen])
            arrivals.append(Arrival(cut, torch.cat(entering), rows))
        lengths = join_lengths(
            [frame.lengths for frame in frames],
            [len(frame.hidden) for frame in frames],
            [frame.hidden.shape[1] for frame in frames],
            frames[0].hidden.device,
        )
        return arrivals, leaves, lengths

    def open(self) -> None:
        """Begin a round."""
        if self.settings.state == "reset":
            self.optimizer.state.clear()

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds."""
        return optimizer_state(self.optimizer)

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        restore_optimizer(self.optimizer, state)


def _padded_labels(labels: Tensor, width: int) -> Tensor:
    return F.pad(labels, (0, width - labels.shape[1]), value=IGNORED) if labels.ndim == 2 else labels
