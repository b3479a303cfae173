"""The server's side of a step, for many devices at once.

SFL-V1 keeps one copy of the server's adapters per device; all frames of a step share one forward and one
backward, and no loop runs over devices. SFL-V2 keeps one copy for all, which takes an optimiser step on each group of
:mod:`sflam.learn.grouping`, its devices weighted as in :mod:`sflam.learn.weighting`.

B rows of a frame, R rows of a step, T tokens, d hidden size.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor

from sflam.learn.examples import join_lengths, padded_labels, padded_tokens
from sflam.learn.finite import Spoiled, is_finite
from sflam.learn.grouping import Rows as GroupRows
from sflam.learn.grouping import grouped
from sflam.learn.optimizers import Side
from sflam.learn.precision import arithmetic, reseeded
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.schedule import Moment
from sflam.learn.weighting import Share, Weighting
from sflam.model.families import CAUSAL
from sflam.model.lora import Rows
from sflam.model.loss import group_losses, target_count
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
class _Held:
    """A forward waiting for its backward: frames sorted by cut, the leaf of each, and what came out of all rows.

    ``weight`` is what the mean loss of each frame counts, G s_k.
    """

    frames: tuple[Frame, ...]
    leaves: tuple[Tensor, ...]
    weight: tuple[float, ...]
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

    def pace(self, moments: Mapping[int, Moment]) -> None:
        """See :meth:`sflam.learn.optimizers.Side.pace`."""

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
        settings: optimiser, clipping, and how a shared trunk groups the rows of a step.
        shared: whether the single copy serves every device.
        devices: the devices it serves, in the order of their copies; None for 0, 1, ...
        group_rows: of a mixed group; 0 for one of every device.

    Attributes:
        guarded: whether a step looks at what it would learn before it learns, and raises :class:`Spoiled` where that
            is not finite.
    """

    guarded = False

    def __init__(
        self,
        segment: ServerSegment,
        task: str,
        settings: LearnSettings,
        *,
        shared: bool = False,
        devices: Sequence[int] | None = None,
        group_rows: int = 0,
    ) -> None:
        super().__init__(segment, settings)
        self.group_rows = group_rows
        self.task = task
        self.shared = shared
        self._copies = None if devices is None else {device: copy for copy, device in enumerate(devices)}
        self.grouping = settings.practice.server_update if shared else "batched"
        self.weighting: Weighting | None = None
        """Of the round; None counts each device one. Separate copies ignore it."""
        self._held: _Held | None = None

    @property
    def one_by_one(self) -> bool:
        """Whether it takes an optimiser step device after device."""
        return self.grouping == "sequential"

    def copy_of(self, device: int) -> int:
        """Return the row of the stack that serves ``device``."""
        if self.shared:
            return 0
        return device if self._copies is None else self._copies[device]

    def devices_by_copy(self) -> dict[int, int]:
        """Return copy -> the device whose own it is; none of a shared one."""
        return {} if self.shared or self._copies is None else {c: d for d, c in self._copies.items()}

    def step(self, frames: Sequence[Frame], seed: int) -> list[Answer]:
        """Train on one frame per device and answer each, in the order given.

        Args:
            frames: at least one, with labels; a device that has none this step does not move.
            seed: seed of this step's dropout.

        Raises:
            Spoiled: where it is guarded.
        """
        counts = {frame.device: len(frame.hidden) for frame in frames}
        groups = grouped(self.grouping, counts, seed, self.group_rows)
        found: dict[int, list[tuple[GroupRows, Answer]]] = {frame.device: [] for frame in frames}
        before = self._remembered() if self.guarded and len(groups) > 1 else None
        for index, group in enumerate(groups):
            members = [frame.rows(group[frame.device]) for frame in frames if frame.device in group]
            own = derive(seed, "group", index) if self.grouping == "mixed" else seed
            weights = self._weights(members, frames, len(groups))
            answers = self.differentiate(members, own, weights)
            if self.guarded and (spoiling := self._spoiling(answers, members, own, weights)):
                if before is not None:
                    self._go_back(*before)
                raise Spoiled(spoiling)
            for answer in answers:
                found[answer.device].append((group[answer.device], answer))
            self.update()
        return [_assembled(self.task, frame, found[frame.device]) for frame in frames]

    def differentiate(
        self, frames: Sequence[Frame], seed: int, weights: Mapping[int, float] | None = None
    ) -> list[Answer]:
        """Answer as :meth:`step` does, and learn nothing: the gradients of the step stay in ``segment.stack.grads``.

        Args:
            frames: at least one, with labels.
            seed: seed of this step's dropout.
            weights: device -> what its mean loss counts, G s_k; 1 for each by default.
        """
        held = self._run(frames, seed, weights)
        labels = torch.cat([padded_labels(frame.labels, held.width) for frame in held.frames])
        with arithmetic(self.segment):
            logits = self.rule.calibrated(held.out, [frame.device for frame in held.frames], held.counts)
            losses = group_losses(self.task, logits, labels, held.counts, self.settings)
        # The sum of per-device means keeps each device's own loss scale: its gradient is that of its mean.
        total = losses.sum() if weights is None else (losses * losses.new_tensor(held.weight)).sum()
        gradients = self._gradients(held, total)
        values = dict(zip((frame.device for frame in held.frames), losses.tolist(), strict=True))
        return [Answer(f.device, values[f.device], gradients[f.device]) for f in frames]

    def forward(self, frames: Sequence[Frame], seed: int) -> dict[int, Tensor]:
        """Labels on the devices, first exchange: return the activations after the last block, device -> [B,T,d].

        The graph is held until :meth:`backward`; one call of each belongs together.
        """
        assert self._held is None and not (self.one_by_one and len(frames) > 1)
        self._held = self._run(frames, seed, self._weights(frames, frames, 1))
        parts = torch.split(self._held.out.detach(), list(self._held.counts))
        return {
            f.device: part[:, : f.hidden.shape[1]] for f, part in zip(self._held.frames, parts, strict=True)
        }

    def forget(self) -> None:
        """Labels on the devices: the forward that is held will have no backward."""
        self._held = None

    def backward(self, gradients: Mapping[int, Tensor]) -> dict[int, Tensor | None]:
        """Second exchange: train from the gradients [B,T,d] of what was returned; return those of what was sent.

        Raises:
            Spoiled: where it is guarded; the forward is held still, for a call without those devices' gradients.
        """
        held = self._held
        assert held is not None
        padded = [
            padded_tokens(
                gradients[frame.device] * weight if weight != 1 else gradients[frame.device], held.width
            )
            for frame, weight in zip(held.frames, held.weight, strict=True)
        ]
        found = self._gradients(held, held.out, torch.cat(padded).to(held.out.dtype), again=self.guarded)
        if self.guarded:
            spoiling = [device for device, gradient in found.items() if not is_finite(gradient)]
            if not (spoiling or self._learns_finite()):
                spoiling = [device for device in gradients if not self._alone_finite(held, device, padded)]
            if spoiling:
                raise Spoiled(spoiling)
        self._held = None
        self.update()
        return found

    def _spoiling(
        self,
        answers: Sequence[Answer],
        members: Sequence[Frame],
        seed: int,
        weights: Mapping[int, float] | None,
    ) -> list[int]:
        """Return the devices of a group of which nothing finite can be learnt."""
        found = [a.device for a in answers if not (math.isfinite(a.loss) and is_finite(a.gradient))]
        if found or self._learns_finite():
            return found
        alone = []
        for member in members:
            self.differentiate([member], seed, weights)
            if not self._learns_finite():
                alone.append(member.device)
        return alone or [member.device for member in members]

    def _alone_finite(self, held: _Held, device: int, padded: Sequence[Tensor]) -> bool:
        """Return whether what one device's gradient teaches is finite."""
        own = [
            g if f.device == device else torch.zeros_like(g) for f, g in zip(held.frames, padded, strict=True)
        ]
        self._gradients(held, held.out, torch.cat(own).to(held.out.dtype), again=True)
        return self._learns_finite()

    def _learns_finite(self) -> bool:
        stack = self.segment.stack
        return is_finite(stack.grads[stack.active])

    def _remembered(self) -> tuple[Tensor, dict[str, Any]]:
        return self.segment.stack.values.detach().clone(), copy.deepcopy(self.state())

    def _go_back(self, values: Tensor, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.segment.stack.values.copy_(values)
        self.restore(state)

    def _weights(
        self, members: Sequence[Frame], frames: Sequence[Frame], groups: int
    ) -> dict[int, float] | None:
        """Return G s_k of the ``members`` of one of the groups of a step's ``frames``; None where each is 1."""
        if not self.shared or self.weighting is None:
            return None
        own = {frame.device: frame.targets(self.task) for frame in frames}
        times, every = self.weighting.groups or groups, sum(own.values())
        return {
            m.device: times
            * self.weighting(Share(m.device, len(m.hidden), m.targets(self.task), own[m.device], every))
            for m in members
        }

    def _run(self, frames: Sequence[Frame], seed: int, weights: Mapping[int, float] | None) -> _Held:
        """Run one forward for all frames."""
        ordered = tuple(sorted(frames, key=lambda frame: frame.cut))
        width = max(frame.hidden.shape[1] for frame in ordered)
        arrivals, leaves, lengths = self._arrivals(ordered, width)
        if self.one_by_one:
            seed = derive(seed, "device", ordered[0].device)
        with arithmetic(self.segment), reseeded(seed if self.random else None):
            out = self.segment(arrivals, lengths)
        counted = tuple(1.0 if weights is None else weights[frame.device] for frame in ordered)
        return _Held(ordered, tuple(leaves), counted, width, out)

    def _gradients(
        self, held: _Held, output: Tensor, grad: Tensor | None = None, *, again: bool = False
    ) -> dict[int, Tensor | None]:
        """Run one backward; return the gradient of each device's own mean loss, where one is wanted.

        ``again`` keeps the graph for another one.
        """
        stack = self.segment.stack
        stack.begin(sorted({self.copy_of(frame.device) for frame in held.frames}))
        wanted = [leaf for leaf in held.leaves if leaf.requires_grad]
        found = iter(stack.backward(output, grad, wanted, again=again))
        gradients: dict[int, Tensor | None] = {}
        for frame, leaf, weight in zip(held.frames, held.leaves, held.weight, strict=True):
            gradient = next(found) if leaf.requires_grad else None
            gradients[frame.device] = gradient if gradient is None or weight == 1 else gradient / weight
        return gradients

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


def _assembled(task: str, frame: Frame, pieces: Sequence[tuple[GroupRows, Answer]]) -> Answer:
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
