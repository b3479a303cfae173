"""A trunk that takes its optimiser steps together with those of the other ranks.

Where one copy serves all devices, every rank computes the gradient of the rows of its own devices, the gradients are
summed before they are clipped, and every rank takes the same step. In canonical mode, where sums keep their order, all
rows go to every rank instead, whole passes are dealt out, and their gradients are added in the order of the passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sflam.learn.frames import Answer, Frame, joined
from sflam.learn.grouping import Rows as GroupRows
from sflam.learn.server import Trunk
from sflam.learn.world.world import World
from sflam.seeds import derive


class JointTrunk(Trunk):
    """A trunk of a fleet on several ranks; it is *joint* where it is shared, or canonical.

    Args:
        args, options: of a :class:`sflam.learn.server.Trunk`.
        world: the ranks.
        fleet: how many devices there are.
    """

    def __init__(self, *args: Any, world: World, fleet: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.world, self.fleet = world, fleet
        self.joint = self.shared or self.settings.canonical

    def step(self, frames: Sequence[Frame], seed: int) -> list[Answer]:
        """Train on one frame per device of every rank; answer those of this one."""
        if not self.settings.canonical:
            # Ranks with masks of their own; with no dropout the seed is not used.
            return super().step(frames, seed) if frames or self.joint else []
        found = self.world.gather([_plain(frame) for frame in frames])
        every = sorted((self._frame(*own) for one in found for own in one), key=lambda frame: frame.device)
        here = {frame.device for frame in frames}
        return [answer for answer in super().step(every, seed) if answer.device in here]

    def _present(self, frames: Sequence[Frame]) -> Mapping[int, tuple[int, int]]:
        own = super()._present(frames)
        if self.settings.canonical or not self.joint:
            return own
        table = torch.zeros(self.fleet, 2, dtype=torch.int64)
        for device, counts in own.items():
            table[device] = torch.tensor(counts)
        self.world.sum(table)
        return {device: (rows, targets) for device, (rows, targets) in enumerate(table.tolist()) if rows}

    def _answered(
        self, members: Sequence[Frame], seed: int, weights: Mapping[int, float] | None
    ) -> list[Answer]:
        if self.settings.canonical:
            return self._dealt(members, seed, weights)
        if self.random:
            seed = derive(seed, "rank", self.world.rank)  # no two rows of a group have one mask
        if not self.joint:
            return self.differentiate(members, seed, weights)
        answers = []
        if members:
            answers = self.differentiate(members, seed, weights)
        else:
            self.segment.stack.begin([0])
        self.world.sum(self.segment.stack.grads)
        return answers

    def _dealt(self, frames: Sequence[Frame], seed: int, weights: Mapping[int, float] | None) -> list[Answer]:
        """Run every so many passes here; add up all gradients pass after pass, as one process does."""
        chunks, stack = self._begin(frames), self.segment.stack
        active = stack.moving
        per = {f.device: f.targets(self.task) for f in frames} if len(chunks) > 1 else None
        mine: dict[int, Any] = {}
        for number in range(self.world.rank, len(chunks), self.world.size):
            stack.begin(stack.active)
            held = self._run(frames, chunks[number], seed, weights, several=len(chunks) > 1)
            answers = self._learnt(held, per)
            del held
            mine[number] = {
                "gradients": stack.grads[active],
                "answers": [(a.device, a.loss, a.gradient) for a in answers],
            }
        every = {number: own for one in self.world.gather(mine) for number, own in one.items()}
        stack.begin(stack.active)
        found: dict[int, list[tuple[GroupRows, Answer]]] = {frame.device: [] for frame in frames}
        for number, chunk in enumerate(chunks):
            stack.grads[active] += every[number]["gradients"].to(stack.grads)
            for device, loss, gradient in every[number]["answers"]:
                there = None if gradient is None else gradient.to(stack.grads.device)
                found[device].append((chunk[device], Answer(device, loss, there)))
        return [joined(frame, found[frame.device]) for frame in frames]

    def _frame(self, device: int, cut: int, *tensors: Tensor | None) -> Frame:
        """Return a frame of another rank, on this one's device."""
        where = self.segment.stack.values.device
        hidden, lengths, labels = (None if one is None else one.to(where) for one in tensors)
        assert hidden is not None
        return Frame(device, cut, hidden, lengths, labels)


def _plain(frame: Frame) -> list[Any]:
    return [frame.device, frame.cut, frame.hidden, frame.lengths, frame.labels]
