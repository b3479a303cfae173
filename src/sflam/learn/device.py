"""The devices' side of a step: forward to the cut, and backward from the gradient that comes back.

Devices in one process share frozen weights and are stacked like the server's copies; each keeps its own adapters
and optimiser state. A device on its own is the case of one.

B rows of a device, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sflam.learn.examples import Minibatch, stack_batches
from sflam.learn.optimizers import optimizer, optimizer_state, restore_optimizer
from sflam.learn.precision import arithmetic, draws_dropout, reseeded
from sflam.learn.settings import LearnSettings
from sflam.model.lora import Rows
from sflam.model.split import DeviceSegment


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward waiting for its gradient: the devices in it, and their activations with the graph kept.

    The graph is kept, not replayed, so the backward sees the dropout masks the server's loss saw.
    """

    devices: tuple[int, ...]
    hidden: Tensor


class Devices:
    """The device segments of a fleet in one process, their optimiser, and one step of any of them.

    Args:
        segment: one copy per device.
        cuts: blocks each device keeps.
        settings: optimiser and clipping.
    """

    def __init__(self, segment: DeviceSegment, cuts: Sequence[int], settings: LearnSettings) -> None:
        self.segment = segment.train()
        self.cuts = tuple(cuts)
        self.settings = settings
        self.random = draws_dropout(segment)
        self.optimizer = optimizer(settings, segment.stack.rows)
        self._waiting: list[Pass] = []

    def forward(self, batches: Mapping[int, Minibatch], seeds: Mapping[int, int]) -> dict[int, Tensor]:
        """Return every device's activations at its cut, device -> [B,T,d], detached.

        Devices with the same cut share one pass, except where dropout draws each its own mask.

        Args:
            batches: device -> its mini-batch.
            seeds: device -> seed of this step's dropout.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for device in sorted(batches):
            key = (self.cuts[device], device) if self.random else (self.cuts[device],)
            groups.setdefault(key, []).append(device)
        self._waiting = []
        out: dict[int, Tensor] = {}
        for (cut, *_), members in groups.items():
            one = stack_batches([batches[device] for device in members])
            counts = [len(batches[device]) for device in members]
            with (
                arithmetic(self.segment),
                reseeded(seeds[members[0]] if self.random else None),
                torch.set_grad_enabled(cut > 0),  # a frozen embedding keeps no graph
            ):
                hidden = self.segment(one.inputs, one.lengths, cut, Rows.of(members, counts))
            if cut:
                self._waiting.append(Pass(tuple(members), hidden))
            for device, rows in zip(members, hidden.detach().split(counts), strict=True):
                out[device] = rows[:, : _width(batches[device], rows)]
        return out

    def backward(self, gradients: Mapping[int, Tensor]) -> None:
        """Take one optimiser step on the devices whose gradient [B,T,d] came back; the others do not move."""
        stack = self.segment.stack
        stack.clear()
        for one in self._waiting:
            parts = [
                torch.nn.functional.pad(g, (0, 0, 0, one.hidden.shape[1] - g.shape[1]))
                for g in (gradients[device] for device in one.devices)
            ]
            stack.backward(one.hidden, torch.cat(parts).to(one.hidden.dtype))
        stack.hand_out(sorted(d for one in self._waiting for d in one.devices), self.settings.clip)
        self._waiting = []
        self.optimizer.step()

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


def _width(batch: Minibatch, rows: Tensor) -> int:
    """Return the tokens of a device's own batch, before it was padded to its neighbours'."""
    ids = batch.inputs.get("input_ids")
    return rows.shape[1] if ids is None else ids.shape[1]
