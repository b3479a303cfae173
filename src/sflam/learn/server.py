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
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sflam.learn.chunks import Chunk, PassBudget, parts_of
from sflam.learn.examples import padded_labels, padded_tokens
from sflam.learn.finite import Spoiled, is_finite
from sflam.learn.frames import Answer, Frame, assembled, joined, rows_joined
from sflam.learn.grouping import Rows as GroupRows
from sflam.learn.grouping import grouped
from sflam.learn.optimizers import Side
from sflam.learn.precision import arithmetic, reseeded
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.schedule import Moment
from sflam.learn.trunk_pass import ChunkForward, arrivals_of, dropout
from sflam.learn.weighting import Share, Weighting
from sflam.model.loss import group_losses
from sflam.model.split import ServerSegment
from sflam.seeds import derive


@dataclass(eq=False)
class WaitingStep:
    """Labels on the devices: a step between its two exchanges. Of several chunks no graph is kept."""

    frames: tuple[Frame, ...]
    seed: int
    weights: Mapping[int, float] | None
    chunks: list[Chunk]
    held: ChunkForward | None = None

    @property
    def several(self) -> bool:
        """Whether there is more than one chunk."""
        return len(self.chunks) > 1


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
    joint = False
    """Whether every step is taken together with other ranks; see :mod:`sflam.learn.world`."""

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
        segment.layout.fused = not settings.canonical
        self.group_rows = group_rows
        self.task = task
        self.shared = shared
        self._copies = None if devices is None else {device: copy for copy, device in enumerate(devices)}
        self.grouping = settings.practice.server_update if shared else "batched"
        self.weighting: Weighting | None = None
        """Of the round; None counts each device one. Separate copies ignore it."""
        self.expected: Mapping[int, int] = {}
        """Device -> the rows that its losses count, whatever came; those that came where it is not here."""
        self.budget: PassBudget | None = None
        """Of one pass; None takes all rows of a step at once."""
        self._waiting: WaitingStep | None = None

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
        present = self._present(frames)
        counts = {device: rows for device, (rows, _) in present.items()}
        groups = grouped(self.grouping, counts, seed, self.group_rows) if present else []
        found: dict[int, list[tuple[GroupRows, Answer]]] = {frame.device: [] for frame in frames}
        before = self._remembered() if self.guarded and len(groups) > 1 else None
        for index, group in enumerate(groups):
            members = [frame.rows(group[frame.device]) for frame in frames if frame.device in group]
            own = derive(seed, "group", index) if self.grouping == "mixed" else seed
            weights = self._weights(members, present, len(groups))
            answers = self._answered(members, own, weights)
            if self.guarded and (spoiling := self._spoiling(answers, members, own, weights)):
                if before is not None:
                    self._go_back(*before)
                raise Spoiled(spoiling)
            for answer in answers:
                found[answer.device].append((group[answer.device], answer))
            self.update()
        return [assembled(self.task, frame, found[frame.device]) for frame in frames]

    def _present(self, frames: Sequence[Frame]) -> Mapping[int, tuple[int, int]]:
        """Return device -> rows and targets, of all that take part in a step."""
        return {frame.device: (len(frame.hidden), frame.targets(self.task)) for frame in frames}

    def _answered(
        self, members: Sequence[Frame], seed: int, weights: Mapping[int, float] | None
    ) -> list[Answer]:
        """Answer a group and leave its gradients in ``segment.stack.grads``."""
        return self.differentiate(members, seed, weights)

    def differentiate(
        self, frames: Sequence[Frame], seed: int, weights: Mapping[int, float] | None = None
    ) -> list[Answer]:
        """Answer as :meth:`step` does, and learn nothing: the gradients of the step stay in ``segment.stack.grads``.

        Args:
            frames: at least one, with labels.
            seed: seed of this step's dropout.
            weights: device -> what its mean loss counts, G s_k; 1 for each by default.
        """
        chunks = self._begin(frames)
        per = {f.device: f.targets(self.task) for f in frames} if len(chunks) > 1 else None
        found: dict[int, list[tuple[GroupRows, Answer]]] = {frame.device: [] for frame in frames}
        for chunk in chunks:
            held = self._run(frames, chunk, seed, weights, several=len(chunks) > 1)
            for answer in self._learnt(held, per):
                found[answer.device].append((chunk[answer.device], answer))
            del held  # before the next one's is made
        return [joined(frame, found[frame.device]) for frame in frames]

    def _learnt(self, held: ChunkForward, per: Mapping[int, int] | None) -> list[Answer]:
        """Answer a chunk; ``per`` is what the mean of a device's loss counts, where not all its rows may be here."""
        devices = [frame.device for frame in held.frames]
        labels = torch.cat([padded_labels(frame.labels, held.width) for frame in held.frames])
        with arithmetic(self.segment):
            logits = self.rule.calibrated(held.out, devices, held.counts)
            whole = None if per is None else [per[device] for device in devices]
            losses = group_losses(self.task, logits, labels, held.counts, self.settings, whole)
        # The sum of per-device means keeps each device's own loss scale: its gradient is that of its mean.
        times = held.times
        weighted = any(weight != 1 for weight in times)
        total = (losses * losses.new_tensor(times)).sum() if weighted else losses.sum()
        gradients = self._gradients(held, total)
        return [Answer(d, loss, gradients[d]) for d, loss in zip(devices, losses.tolist(), strict=True)]

    def forward(self, frames: Sequence[Frame], seed: int) -> dict[int, Tensor]:
        """Labels on the devices, first exchange: return the activations after the last block, device -> [B,T,d].

        The graph is held until :meth:`backward`; one call of each belongs together.
        """
        assert self._waiting is None and not (self.one_by_one and len(frames) > 1)
        waiting = WaitingStep(
            tuple(frames), seed, self._weights(frames, self._present(frames), 1), self._chunks(frames)
        )
        found: dict[int, list[tuple[GroupRows, Tensor]]] = {frame.device: [] for frame in frames}
        for chunk in waiting.chunks:
            with torch.set_grad_enabled(not waiting.several):
                held = self._run(frames, chunk, seed, waiting.weights, several=waiting.several)
            waiting.held = None if waiting.several else held
            parts = torch.split(held.out.detach(), list(held.counts))
            for f, part in zip(held.frames, parts, strict=True):
                found[f.device].append((chunk[f.device], part[:, : f.hidden.shape[1]]))
        self._waiting = waiting
        return {frame.device: rows_joined(frame, found[frame.device]) for frame in frames}

    def forget(self) -> None:
        """Labels on the devices: the forward that waits will have no backward."""
        self._waiting = None

    def put_by(self) -> WaitingStep:
        """Set the step that waits aside, so that other devices' steps go on; its forward is made once more then."""
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        waiting.held = None
        return waiting

    def take_up(self, waiting: WaitingStep) -> None:
        """Let a step wait again that :meth:`put_by` set aside, whose devices' copies are as they were."""
        assert self._waiting is None
        self._waiting = waiting

    def backward(self, gradients: Mapping[int, Tensor]) -> dict[int, Tensor | None]:
        """Second exchange: train from the gradients [B,T,d] of what was returned; return those of what was sent.

        Raises:
            Spoiled: where it is guarded; the forward waits still, for a call without those devices' gradients.
        """
        found = self.returned(gradients)
        if self.guarded:
            spoiling = [device for device, gradient in found.items() if not is_finite(gradient)]
            if not (spoiling or self._learns_finite()):
                spoiling = [device for device in gradients if not self._alone_finite(device, gradients)]
            if spoiling:
                raise Spoiled(spoiling)
        self._waiting = None
        self.update()
        return found

    def returned(self, gradients: Mapping[int, Tensor]) -> dict[int, Tensor | None]:
        """Run the backward of the step that waits, of several chunks with their forward once more."""
        waiting = self._waiting
        assert waiting is not None
        self._begin(waiting.frames)
        found: dict[int, list[tuple[GroupRows, Tensor]]] = {frame.device: [] for frame in waiting.frames}
        for chunk in waiting.chunks:
            held = waiting.held or self._run(
                waiting.frames, chunk, waiting.seed, waiting.weights, several=waiting.several
            )
            coming = []
            for frame, weight in zip(held.frames, held.times, strict=True):
                own = gradients[frame.device]
                if len(frame.hidden) < len(own):
                    at = torch.from_numpy(chunk[frame.device]).to(own.device)
                    own = own[at][:, : frame.hidden.shape[1]]
                coming.append(padded_tokens(own * weight if weight != 1 else own, held.width))
            grad = torch.cat(coming).to(held.out.dtype)
            for device, gradient in self._gradients(held, held.out, grad, again=self.guarded).items():
                if gradient is not None:
                    found[device].append((chunk[device], gradient))
        return {
            f.device: rows_joined(f, found[f.device]) if found[f.device] else None for f in waiting.frames
        }

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

    def _alone_finite(self, device: int, gradients: Mapping[int, Tensor]) -> bool:
        """Return whether what one device's gradient teaches is finite."""
        self.returned({d: g if d == device else torch.zeros_like(g) for d, g in gradients.items()})
        return self._learns_finite()

    def _learns_finite(self) -> bool:
        stack = self.segment.stack
        return is_finite(stack.grads[stack.moving])

    def _remembered(self) -> tuple[Tensor, dict[str, Any]]:
        return self.segment.stack.values.detach().clone(), copy.deepcopy(self.state())

    def _go_back(self, values: Tensor, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.segment.stack.values.copy_(values)
        self.restore(state)

    def _weights(
        self, members: Sequence[Frame], present: Mapping[int, tuple[int, int]], groups: int
    ) -> dict[int, float] | None:
        """Return G s_k of the ``members`` of one of the groups of a step; None where each is 1."""
        if not self.shared or self.weighting is None:
            return None
        times, every = self.weighting.groups or groups, sum(targets for _, targets in present.values())
        return {
            m.device: times
            * self.weighting(
                Share(m.device, len(m.hidden), m.targets(self.task), present[m.device][1], every)
            )
            for m in members
        }

    def _begin(self, frames: Sequence[Frame]) -> list[Chunk]:
        """Begin the gradients of a step; return its chunks."""
        self.segment.stack.begin(sorted({self.copy_of(frame.device) for frame in frames}))
        return self._chunks(frames)

    def _chunks(self, frames: Sequence[Frame]) -> list[Chunk]:
        if self.budget is None:
            return [{frame.device: np.arange(len(frame.hidden)) for frame in frames}]
        return self.budget.chunks(frames)

    def _run(
        self,
        frames: Sequence[Frame],
        chunk: Chunk,
        seed: int,
        weights: Mapping[int, float] | None,
        *,
        several: bool,
    ) -> ChunkForward:
        """Run one forward for a chunk of the frames of a step, which has ``several`` or this one alone."""
        ordered = tuple(sorted(parts_of(frames, chunk), key=lambda frame: frame.cut))
        # Where dropout is drawn row by row, as wide as the step: a mask is of all tokens.
        wide = frames if several and self.random else ordered
        width = max(frame.hidden.shape[1] for frame in wide)
        arrivals, leaves, lengths = arrivals_of(self.segment, ordered, width, self.copy_of)
        if self.one_by_one:
            seed = derive(seed, "device", ordered[0].device)
        row_by_row = dropout(self.segment, ordered, chunk, seed) if several and self.random else None
        with arithmetic(self.segment), row_by_row or reseeded(seed if self.random else None):
            out = self.segment(arrivals, lengths)
        counted = tuple(1.0 if weights is None else weights[frame.device] for frame in ordered)
        rows = {frame.device: len(frame.hidden) for frame in frames}
        share = tuple(rows[f.device] / self.expected.get(f.device, rows[f.device]) for f in ordered)
        return ChunkForward(ordered, tuple(leaves), counted, width, out, share)

    def _gradients(
        self, held: ChunkForward, output: Tensor, grad: Tensor | None = None, *, again: bool = False
    ) -> dict[int, Tensor | None]:
        """Run one backward; return the gradient of each device's own mean loss, where one is wanted.

        ``again`` keeps the graph for another one.
        """
        wanted = [leaf for leaf in held.leaves if leaf.requires_grad]
        found = iter(self.segment.stack.backward(output, grad, wanted, again=again))
        gradients: dict[int, Tensor | None] = dict.fromkeys(frame.device for frame in held.frames)
        every = iter(zip(held.frames, held.weight, strict=True))
        for leaf in held.leaves:
            rows = next(found) if leaf.requires_grad else None
            start = 0
            while start < len(leaf):
                frame, weight = next(every)
                stop = start + len(frame.hidden)
                if rows is not None and self.segment.answers(frame.cut, frame.device):
                    gradient = rows[start:stop, : frame.hidden.shape[1]]
                    gradients[frame.device] = gradient if weight == 1 else gradient / weight
                start = stop
        return gradients
