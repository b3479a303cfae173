"""The devices' side of a step: forward to the cut, and backward from the gradient that comes back.

Devices in one process share frozen weights and are stacked like the server's copies; each keeps its own adapters
and optimiser state. A device on its own is the case of one.

B rows of a device, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sflam.codec.guard import Guard
from sflam.learn.activation_cache import KeptActivations
from sflam.learn.decorrelation import Decorrelation
from sflam.learn.dropping import Dropping
from sflam.learn.examples import Minibatch, join_lengths, padded_labels, padded_tokens, stack_batches
from sflam.learn.optimizers import Side
from sflam.learn.precision import arithmetic, reseeded
from sflam.learn.reported_loss import ReportedLoss
from sflam.learn.sample_clipping import SampleClipping
from sflam.learn.settings import LearnSettings
from sflam.learn.weighting import Share, Weighting
from sflam.model.families import CAUSAL, SEQUENCE
from sflam.model.kept_token import LAST, kept_token
from sflam.model.lora import Rows
from sflam.model.loss import group_losses, target_count
from sflam.model.split import DeviceSegment
from sflam.sizes import adapter_body_bytes


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward waiting for its gradient: the devices in it, the rows of each, and their activations with the graph.

    The graph is kept, not replayed, so the backward sees the dropout masks the server's loss saw.
    """

    devices: tuple[int, ...]
    counts: tuple[int, ...]
    hidden: Tensor
    own: Tensor | None = None
    """[R,T,d], what the devices' own loss adds to the gradient of that."""


class Devices(Side[DeviceSegment]):
    """The device segments of a fleet in one process, their optimiser, and one step of any of them.

    Args:
        segment: one copy per device.
        cuts: blocks each device keeps.
        settings: optimiser, clipping, and what is kept of a frozen half.

    Attributes:
        clipping: what is done to the gradient of each sample; None takes that of a mini-batch as it is.
        reported: what is done to the loss of each sample that counts in the mean they report, with labels at home; None
            reports that mean as it is.
        decorrelation: what devices add to their loss; None adds nothing.
        dropping: which tokens they send; None sends all.
    """

    def __init__(self, segment: DeviceSegment, cuts: Sequence[int], settings: LearnSettings) -> None:
        averages = settings.practice.device_half == "averaged"
        super().__init__(segment, settings, alike=averages)
        self.kept = KeptActivations() if settings.cache == "device" else None
        self.cuts = tuple(cuts)
        self.averages = averages
        self.apart = self.random or settings.canonical
        self.row_by_row = settings.canonical and not self.random
        self._waiting: list[Pass] = []
        self._members: tuple[int, ...] = tuple(range(len(cuts)))
        self._weighting: Weighting | None = None
        self.clipping: SampleClipping | None = None
        self.reported: ReportedLoss | None = None
        self.decorrelation: Decorrelation | None = None
        self.dropping: Dropping | None = None
        self._columns: dict[int, Tensor] = {}

    def protect(self, guard: Guard | None, task: str = SEQUENCE) -> None:
        """Clip what a sample adds to gradients and losses, make sums noisy, add to the loss, drop tokens, as a
        ``guard`` asks. Raises ModelError where a model of this ``task`` needs all tokens."""
        self.clipping = SampleClipping(guard) if guard and guard.moves_samples else None
        self.reported = ReportedLoss(guard) if guard and guard.moves_losses else None
        self.decorrelation = Decorrelation(guard.decorrelation) if guard and guard.decorrelation else None
        self.dropping = None
        if guard and guard.drop:
            reads = kept_token(self.segment.family.name, per_token=task == CAUSAL)
            self.dropping = Dropping(guard.drop, last=reads == LAST)

    def at_attempt(self, attempt: int) -> None:
        """Draw noise as at this ``attempt`` at a round."""
        if self.clipping:
            self.clipping.at_attempt(attempt)
        if self.reported:
            self.reported.at_attempt(attempt)

    def expect(self, rows: Mapping[int, int]) -> None:
        """Let the mean over the samples of these devices' steps count so many rows, whatever comes."""
        if self.clipping:
            self.clipping.expected = rows

    def forward(
        self,
        batches: Mapping[int, Minibatch],
        seeds: Mapping[int, int],
        unsent: Mapping[int, Minibatch] | None = None,
    ) -> dict[int, Tensor]:
        """Return every device's activations at its cut, device -> [B,T,d], detached.

        Devices with the same cut share one pass, except where dropout draws each its own mask, and in canonical mode,
        where each computes just what it would on a machine of its own.

        Args:
            batches: device -> its mini-batch.
            seeds: device -> seed of this step's dropout.
            unsent: where the server keeps activations, the rows of each device that it does not have.
        """
        if self.clipping:
            self.clipping.begin(batches, seeds)
        if self.settings.cache != "off":
            self.segment.stack.begin(sorted(batches) if self.segment.has_head else [])
            return self._frozen(batches if unsent is None else unsent)
        self._waiting = []
        trains = {d: self.segment.answers(self.cuts[d], d) for d in sorted(batches)}
        self.segment.stack.begin([d for d in trains if trains[d] or self.segment.has_head])
        out: dict[int, Tensor] = {}
        for cut, members in self._by_cut(sorted(batches)):
            with (
                reseeded(seeds[members[0]] if self.random else None),
                torch.set_grad_enabled(trains[members[0]]),  # a frozen half keeps no graph
            ):
                hidden, counts = self._pass(batches, members, cut)
            if trains[members[0]]:
                own = self._own_gradient(batches, members, torch.split(hidden.detach(), counts))
                self._waiting.append(Pass(tuple(members), tuple(counts), hidden, own))
            for device, rows in zip(members, torch.split(hidden.detach(), counts), strict=True):
                out[device] = rows[:, : _width(batches[device], rows)]
        return out

    def sent(
        self, hidden: dict[int, Tensor], batches: dict[int, Minibatch], seeds: Mapping[int, int]
    ) -> tuple[dict[int, Tensor], dict[int, Minibatch]]:
        """Return what goes up of the activations of :meth:`forward`, and the mini-batches as their servers see them.

        The gradients of :meth:`backward` are then of what went up. ``seeds`` are those of the forward.
        """
        return (hidden, batches) if self.dropping is None else self.dropping.sent(hidden, batches, seeds)

    def _own_gradient(
        self, batches: Mapping[int, Minibatch], members: Sequence[int], hidden: Sequence[Tensor]
    ) -> Tensor | None:
        """Return [R,T,d], the gradient of what devices add to their loss; None where they add nothing.

        Args:
            batches: device -> its mini-batch.
            members: the devices of a pass.
            hidden: the activations [B,T,d] of each, as wide as the pass.
        """
        if self.decorrelation is None:
            return None
        parts = []
        for device, rows in zip(members, hidden, strict=True):
            own = rows[:, : _width(batches[device], rows)]
            parts.append(padded_tokens(self.decorrelation.gradient(batches[device], own), rows.shape[1]))
        return torch.cat(parts)

    def _frozen(self, batches: Mapping[int, Minibatch]) -> dict[int, Tensor]:
        """Return [B,T,d] of every device's mini-batch at its cut, running only rows that no device keeps."""
        runs = dict(batches)
        if self.kept:
            missing = {device: self.kept.missing(device, batch) for device, batch in batches.items()}
            runs = {device: rows for device, rows in missing.items() if rows is not None}
        out: dict[int, Tensor] = {}
        self.segment.eval()  # what is kept is drawn once, so it has no dropout
        for cut, members in self._by_cut(sorted(runs)):
            with torch.no_grad():
                hidden, counts = self._pass(runs, members, cut)
            out |= zip(members, torch.split(hidden, counts), strict=True)
        self.segment.train()
        if not self.kept:
            return {device: rows[:, : _width(batches[device], rows)] for device, rows in out.items()}
        for device, rows in out.items():
            self.kept.add(device, runs[device], rows[:, : _width(runs[device], rows)])
        return {device: self.kept.take(device, batch) for device, batch in batches.items()}

    def _pass(
        self, batches: Mapping[int, Minibatch], members: Sequence[int], cut: int
    ) -> tuple[Tensor, list[int]]:
        """Return the activations [R,T,d] of devices that share a pass, and the rows of each."""
        stacked = stack_batches([batches[device] for device in members])
        counts = [len(batches[device]) for device in members]
        if self.row_by_row and len(stacked) > 1 and self._repeats(members[0], cut):
            return self._row_by_row(stacked, members[0], cut), counts
        with arithmetic(self.segment):
            return self.segment(stacked.inputs, stacked.lengths, cut, self._rows(members, counts)), counts

    def _rows(self, members: Sequence[int], counts: Sequence[int]) -> Rows:
        """Return how the rows of devices are laid out: apart where each is to have a gradient of its own."""
        apart = self.clipping is not None and torch.is_grad_enabled()
        return Rows.each(members, counts) if apart else Rows.of(members, counts)

    def _repeats(self, device: int, cut: int) -> bool:
        """Whether a device trains nothing below its cut, so that a sample's activations are the same in every pass.

        Row by row they are so to the bit, whichever rows a sample comes with.
        """
        return self.segment.frozen_half or (cut > 0 and not self.segment.answers(cut, device))

    def _row_by_row(self, batch: Minibatch, device: int, cut: int) -> Tensor:
        """Return [B,T,d] of a mini-batch of one device, every row run on its own and as long as it is."""
        rows = []
        for index in range(len(batch)):
            row = batch.rows(torch.tensor([index]))
            if row.lengths is not None:
                ids = row.inputs["input_ids"][:, : int(row.lengths)]
                row = Minibatch({"input_ids": ids}, None, row.labels)
            with arithmetic(self.segment):
                rows.append(self.segment(row.inputs, None, cut, Rows.of([device], [1])))
        width = max(row.shape[1] for row in rows)
        return torch.cat([padded_tokens(row, width) for row in rows])

    def _by_cut(self, devices: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Return the groups of devices that share a pass to their cut, with it."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for device in devices:
            tuned = self.segment.blocks_of(device)
            like = (device,) if self.apart else (tuned.start, tuned.stop)
            key = (self.cuts[device], *like)
            groups.setdefault(key, []).append(device)
        return [(cut, members) for (cut, *_), members in groups.items()]

    def _together(self, devices: list[int]) -> list[list[int]]:
        """Return the groups of devices that share a pass."""
        return [[device] for device in devices] if self.apart or not devices else [devices]

    def finish(
        self,
        task: str,
        batches: Mapping[int, Minibatch],
        hidden: Mapping[int, Tensor],
        seeds: Mapping[int, int],
    ) -> dict[int, tuple[float, Tensor]]:
        """Labels at home: run head and loss on what came back; return each reported loss and its gradient [B,T,d].

        Args:
            task: what the loss is, a key of ``Family.tasks``.
            batches: device -> its mini-batch, as in :meth:`forward`.
            hidden: device -> [B,T,d], the activations after the server's last block.
            seeds: device -> seed of this step's dropout in the head.
        """
        devices = sorted(batches)
        out: dict[int, tuple[float, Tensor]] = {}
        for members in self._together(devices):
            counts = [len(batches[device]) for device in members]
            widths = [hidden[device].shape[1] for device in members]
            joined = torch.cat([padded_tokens(hidden[device], max(widths)) for device in members])
            leaf = joined.to(self.segment.stack.values.dtype).requires_grad_()
            lengths = join_lengths([batches[d].lengths for d in members], counts, widths, leaf.device)
            labels = torch.cat([padded_labels(batches[device].labels, max(widths)) for device in members])
            with arithmetic(self.segment), reseeded(seeds[members[0]] if self.random else None):
                logits = self.segment.finish(leaf, lengths, self._rows(members, counts))
                logits = self.rule.calibrated(logits, members, counts)
                losses = group_losses(task, logits, labels, tuple(counts), self.settings)
            (gradient,) = self.segment.stack.backward(losses.sum(), inputs=[leaf])
            assert gradient is not None
            if self.clipping:
                samples = self.segment.stack.taken_samples()
                self.clipping.add(members, counts, samples, returned=False)
            means = losses.tolist()
            if self.reported:
                rows = group_losses(task, logits.detach(), labels, (1,) * len(labels), self.settings)
                means = self.reported.means(rows, counts, [seeds[device] for device in members])
            for device, loss, own, width in zip(
                members, means, torch.split(gradient, counts), widths, strict=True
            ):
                out[device] = loss, own[:, :width]
        return out

    def weigh(self, devices: Sequence[int], weighting: Weighting | None) -> None:
        """Begin a round of ``devices``, whose halves have shares in the average of every step, where there is one."""
        self._members, self._weighting = tuple(devices), weighting

    def backward(self, gradients: Mapping[int, Tensor], batches: Mapping[int, Minibatch]) -> None:
        """Take one optimiser step on the devices whose gradient [B,T,d] came back, or that ran their own head.

        Args:
            gradients: device -> what came back.
            batches: device -> its mini-batch of the step; a device that began the step and is not here does not move.
        """
        self.differentiate(gradients)
        self.segment.stack.only(batches)
        if self.clipping:
            for device in self.segment.stack.active:
                self.clipping.give(self.segment.stack, device, self._own_columns(device))
        if self.averages:
            self.segment.stack.average(shares_of_step(self._weighting, batches), self._members)
        self.update()

    def names(self, device: int) -> list[str]:
        """Return the names of what a device trains on its side."""
        return self.segment.names(self.cuts[device], device)

    def _own_columns(self, device: int) -> Tensor:
        """Return int64 [Q], where what a device trains stands in its row: as on a machine of its own, in its order."""
        if device not in self._columns:
            stack = self.segment.stack
            own = torch.zeros(stack.size(), dtype=torch.bool, device=stack.grads.device)
            for name in self.names(device):
                own[stack.slots[name].columns] = True
            if stack.beyond is not None:
                own &= ~stack.beyond[stack.place(device)]
            self._columns[device] = own.nonzero()[:, 0]
        return self._columns[device]

    def averaged_bytes(self) -> int:
        """Return the bytes of the gradients of one device half, as they travel to be averaged."""
        stack = self.segment.stack
        names = self.segment.names(max(self.cuts))
        return adapter_body_bytes(stack.size(names), 8 * stack.values.element_size()) if names else 0

    def differentiate(self, gradients: Mapping[int, Tensor]) -> None:
        """Add what :meth:`backward` would learn from to ``segment.stack.grads``, and learn nothing."""
        stack = self.segment.stack
        if self.dropping is not None:
            gradients = self.dropping.spread(gradients)
        for item in self._waiting:
            parts = [
                padded_tokens(gradients[device], item.hidden.shape[1])
                if device in gradients
                else item.hidden.new_zeros(count, *item.hidden.shape[1:])  # its answer never came
                for device, count in zip(item.devices, item.counts, strict=True)
            ]
            back = torch.cat(parts)
            if item.own is not None:
                came = torch.tensor([device in gradients for device in item.devices], device=back.device)
                here = came.repeat_interleave(torch.tensor(item.counts, device=back.device))
                back = back + torch.where(here[:, None, None], item.own, 0.0).to(back.dtype)
            stack.backward(item.hidden, back.to(item.hidden.dtype))
            if self.clipping:
                self.clipping.add(item.devices, item.counts, stack.taken_samples(), returned=True)
        self._waiting = []


def shares_of_step(weighting: Weighting | None, batches: Mapping[int, Minibatch]) -> dict[int, float]:
    """Return device -> s_k, its share in the average of a step's gradients; equal ones without a ``weighting``."""
    if weighting is None:
        return dict.fromkeys(batches, 1 / len(batches))
    targets = {device: target_count(batch.labels) for device, batch in batches.items()}
    every = sum(targets.values())
    return {
        device: weighting(Share(device, len(batch), targets[device], targets[device], every))
        for device, batch in batches.items()
    }


def _width(batch: Minibatch, rows: Tensor) -> int:
    """Return the tokens of a device's own batch, before it was padded to its neighbours'."""
    ids = batch.inputs.get("input_ids")
    return rows.shape[1] if ids is None else ids.shape[1]
