"""The server's side of a step, for many devices at once.

SFL-V1 keeps one copy of the server's adapters per device; all frames of a step share one forward and one
backward, and no loop runs over devices. SFL-V2 keeps one copy for all: ``batched`` takes one step on the summed
gradients, ``sequential`` steps frame after frame.

B rows of a frame, R rows of a step, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from sflam.learn.examples import join_lengths, padded_labels, padded_tokens
from sflam.learn.optimizers import Side
from sflam.learn.precision import arithmetic, reseeded
from sflam.learn.settings import LearnSettings
from sflam.model.lora import Rows
from sflam.model.loss import group_losses
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
        labels: [B], or [B,T] with ``IGNORED`` on padding; None where they stay on the device.
    """

    device: int
    cut: int
    hidden: Tensor
    lengths: Tensor | None
    labels: Tensor | None


@dataclass(frozen=True, eq=False)
class _Held:
    """A forward waiting for its backward: frames sorted by cut, the leaf of each, and what came out of all rows."""

    frames: tuple[Frame, ...]
    leaves: tuple[Tensor, ...]
    width: int
    out: Tensor

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows of each frame."""
        return tuple(len(frame.hidden) for frame in self.frames)


@dataclass(frozen=True, eq=False)
class Answer:
    """What one device gets back: its loss, and the gradient [B,T,d] of its activations where it trains any."""

    device: int
    loss: float
    gradient: Tensor | None


class Server(Protocol):
    """What answers the devices' frames: one trunk, or those of several servers."""

    task: str
    one_by_one: bool

    def step(self, frames: Sequence[Frame], seed: int) -> list[Answer]:
        """See :meth:`Trunk.step`."""

    def forward(self, frames: Sequence[Frame], seed: int) -> dict[int, Tensor]:
        """See :meth:`Trunk.forward`."""

    def backward(self, gradients: Mapping[int, Tensor]) -> dict[int, Tensor | None]:
        """See :meth:`Trunk.backward`."""


class Trunk(Side[ServerSegment]):
    """The server segment, its optimiser, and one step over the frames of many devices.

    Args:
        segment: the server's blocks and head; one copy per device (SFL-V1) or a single one (SFL-V2).
        task: what the loss is, a key of ``Family.tasks``.
        settings: optimiser, clipping, and the order of SFL-V2's updates.
        shared: whether the single copy serves every device.
        devices: the devices it serves, in the order of their copies; None for 0, 1, ...
    """

    def __init__(
        self,
        segment: ServerSegment,
        task: str,
        settings: LearnSettings,
        *,
        shared: bool = False,
        devices: Sequence[int] | None = None,
    ) -> None:
        super().__init__(segment, settings)
        self.task = task
        self.shared = shared
        self._copies = None if devices is None else {device: copy for copy, device in enumerate(devices)}
        self.one_by_one = shared and settings.server_update == "sequential"
        self._held: _Held | None = None

    def copy_of(self, device: int) -> int:
        """Return the row of the stack that serves ``device``."""
        if self.shared:
            return 0
        return device if self._copies is None else self._copies[device]

    def step(self, frames: Sequence[Frame], seed: int) -> list[Answer]:
        """Train on one frame per device and answer each, in the order given.

        Args:
            frames: at least one, with labels; a device that has none this step does not move.
            seed: seed of this step's dropout.
        """
        if self.one_by_one and len(frames) > 1:
            return [answer for frame in frames for answer in self.step([frame], seed)]
        answers = self.differentiate(frames, seed)
        self.update()
        return answers

    def differentiate(self, frames: Sequence[Frame], seed: int) -> list[Answer]:
        """Answer as :meth:`step` does, and learn nothing: the gradients of the step stay in ``segment.stack.grads``."""
        held = self._run(frames, seed)
        labels = torch.cat([padded_labels(frame.labels, held.width) for frame in held.frames])
        with arithmetic(self.segment):
            losses = group_losses(self.task, held.out, labels, held.counts)
        # The sum of per-device means keeps each device's own loss scale: its gradient is that of its mean.
        gradients = self._gradients(held, losses.sum())
        values = dict(zip((frame.device for frame in held.frames), losses.tolist(), strict=True))
        return [Answer(f.device, values[f.device], gradients[f.device]) for f in frames]

    def forward(self, frames: Sequence[Frame], seed: int) -> dict[int, Tensor]:
        """Labels on the devices, first exchange: return the activations after the last block, device -> [B,T,d].

        The graph is held until :meth:`backward`; one call of each belongs together.
        """
        assert self._held is None and not (self.one_by_one and len(frames) > 1)
        self._held = self._run(frames, seed)
        parts = torch.split(self._held.out.detach(), list(self._held.counts))
        return {
            f.device: part[:, : f.hidden.shape[1]] for f, part in zip(self._held.frames, parts, strict=True)
        }

    def backward(self, gradients: Mapping[int, Tensor]) -> dict[int, Tensor | None]:
        """Second exchange: train from the gradients [B,T,d] of what was returned; return those of what was sent."""
        held, self._held = self._held, None
        assert held is not None
        padded = [padded_tokens(gradients[frame.device], held.width) for frame in held.frames]
        found = self._gradients(held, held.out, torch.cat(padded).to(held.out.dtype))
        self.update()
        return found

    def _run(self, frames: Sequence[Frame], seed: int) -> _Held:
        """Run one forward for all frames."""
        ordered = tuple(sorted(frames, key=lambda frame: frame.cut))
        width = max(frame.hidden.shape[1] for frame in ordered)
        arrivals, leaves, lengths = self._arrivals(ordered, width)
        if self.one_by_one:
            seed = derive(seed, "device", ordered[0].device)
        with arithmetic(self.segment), reseeded(seed if self.random else None):
            return _Held(ordered, tuple(leaves), width, self.segment(arrivals, lengths))

    def _gradients(self, held: _Held, output: Tensor, grad: Tensor | None = None) -> dict[int, Tensor | None]:
        """Run one backward; return each device's gradient, where one is wanted."""
        stack = self.segment.stack
        stack.begin(sorted({self.copy_of(frame.device) for frame in held.frames}))
        wanted = [leaf for leaf in held.leaves if leaf.requires_grad]
        found = iter(stack.backward(output, grad, wanted))
        pairs = zip(held.frames, held.leaves, strict=True)
        return {frame.device: next(found) if leaf.requires_grad else None for frame, leaf in pairs}

    def _arrivals(
        self, frames: Sequence[Frame], width: int
    ) -> tuple[list[Arrival], list[Tensor], Tensor | None]:
        """Group frames by cut; return the arrivals, the leaf of each frame, and the lengths of all rows."""
        dtype = self.segment.stack.values.dtype
        leaves = [
            frame.hidden.detach().to(dtype).requires_grad_(self.segment.answers(frame.cut))
            for frame in frames
        ]
        arrivals: list[Arrival] = []
        seen: list[Frame] = []
        for cut, members in groupby(zip(frames, leaves, strict=True), key=lambda pair: pair[0].cut):
            entering = []
            for frame, leaf in members:
                seen.append(frame)
                entering.append(padded_tokens(leaf, width))
            rows = Rows.of([self.copy_of(f.device) for f in seen], [len(f.hidden) for f in seen])
            arrivals.append(Arrival(cut, torch.cat(entering), rows))
        lengths = join_lengths(
            [frame.lengths for frame in frames],
            [len(frame.hidden) for frame in frames],
            [frame.hidden.shape[1] for frame in frames],
            frames[0].hidden.device,
        )
        return arrivals, leaves, lengths
