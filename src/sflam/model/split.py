"""Cutting an adapted model: the device keeps the embedding and the first blocks, the server the rest.

A segment is made of the Hugging Face model's own modules; its frozen tensors are shared with the whole model, its
trained ones live in an :class:`AdapterStack` with one row per device. Composition equals the whole model for every
cut 0..L; devices with different cuts may share one pass.

Shapes: R rows (samples of several devices), T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from sflam.errors import ModelError
from sflam.model.adapters import PREFIX
from sflam.model.backbone import Backbone
from sflam.model.block_inputs import Arguments
from sflam.model.full import FullModel
from sflam.model.lora import Rows
from sflam.model.segment import Segment
from sflam.plan import ALL_LOCAL


class DeviceSegment(Segment):
    """Embedding and blocks before the cut; with labels at home, also what runs after the last block."""

    def __init__(
        self, backbone: Backbone, cut: int, copies: int = 1, *, labels: str = "server", **options: Any
    ) -> None:
        """Hold blocks 0..``cut``-1 with ``copies`` rows of adapters, and the head when labels stay here."""
        names = backbone.family.front + backbone.family.both
        own = not options.get("frozen_half", False)
        super().__init__(backbone, names, range(cut), copies, has_head=labels == "device", own=own, **options)

    def forward(self, inputs: Mapping[str, Tensor], lengths: Tensor | None, cut: int, rows: Rows) -> Tensor:
        """Return the activations at ``cut``, [R,T,d], of a batch laid out as ``rows``."""
        out = [
            self._through({name: t[at] for name, t in inputs.items()}, _rows(lengths, at), cut)
            for at in self.passes(rows)
        ]
        return torch.cat(out) if len(out) > 1 else out[0]

    def _through(self, inputs: Mapping[str, Tensor], lengths: Tensor | None, cut: int) -> Tensor:
        hidden = self.family.embed(self.parts, inputs)
        if not cut:
            return hidden
        arguments = self.surroundings(hidden, lengths)
        for index in range(cut):
            hidden = self.run(index, hidden, arguments)
        return hidden

    def finish(self, hidden: Tensor, lengths: Tensor | None, rows: Rows) -> Tensor:
        """Return the logits from the activations after the last block, [R,T,d]; only with labels at home."""
        hidden = hidden.to(self.dtype)
        out = [self.head(self.parts, hidden[at], _rows(lengths, at)) for at in self.passes(rows)]
        return torch.cat(out) if len(out) > 1 else out[0]

    def holds_block(self, block: int, cut: int) -> bool:
        """Whether ``block`` is one of a device cut at ``cut``."""
        return block < cut

    def _bare(self, index: int) -> bool:
        return bool(self.tuned_by) and not any(
            index in self.blocks_of(device) for device in self.layout.rows.copies
        )


@dataclass(frozen=True)
class Arrival:
    """Rows that enter the server at one cut.

    Attributes:
        cut: the block they enter at.
        hidden: [r,T,d] their activations.
        rows: the layout of all rows from this cut on, these last.
    """

    cut: int
    hidden: Tensor
    rows: Rows


class ServerSegment(Segment):
    """Blocks from the lowest cut on; norm and head too, unless labels stay on the devices."""

    def __init__(
        self, backbone: Backbone, cut: int, copies: int = 1, *, labels: str = "server", **options: Any
    ) -> None:
        """Hold blocks ``cut``..L-1, and the head when labels come here, with ``copies`` rows of adapters."""
        held, names = range(cut, backbone.depth), backbone.family.both
        super().__init__(backbone, names, held, copies, has_head=labels == "server", **options)

    def forward(self, arrivals: Sequence[Arrival], lengths: Tensor | None) -> Tensor:
        """Return the logits of all rows, or, without the head, their activations after the last block.

        Args:
            arrivals: in order of their cuts, all padded to the same T.
            lengths: [R] valid tokens of every row in the order of arrival; None when all are full.
        """
        if self.places is None:
            return self._through(arrivals, lengths)
        out, start = [], 0
        for arrival in arrivals:
            for at in self.passes(arrival.rows.last(len(arrival.hidden))):
                own = None if lengths is None else lengths[start:][at]
                out.append(self._through([replace(arrival, hidden=arrival.hidden[at])], own))
            start += len(arrival.hidden)
        return torch.cat(out)

    def _through(self, arrivals: Sequence[Arrival], lengths: Tensor | None) -> Tensor:
        pending = list(arrivals)
        self.layout.gathered = self.stack.gather(pending[-1].rows.copies)
        hidden = pending[0].hidden.new_empty(0)
        arguments: Arguments | None = None
        for index in range(pending[0].cut, self.held.stop + 1):
            if pending and pending[0].cut == index:
                arrival = pending.pop(0)
                entering = arrival.hidden.to(self.dtype)
                hidden = torch.cat([hidden, entering]) if hidden.numel() else entering
                self.layout.rows = arrival.rows
                arguments = None
            if index < self.held.stop:
                if arguments is None:
                    arguments = self.surroundings(hidden, None if lengths is None else lengths[: len(hidden)])
                hidden = self.run(index, hidden, arguments)
        return self.head(self.parts, hidden, lengths) if self.has_head else hidden

    def holds_block(self, block: int, cut: int) -> bool:
        """Whether the server runs ``block`` for a device cut at ``cut``."""
        return block >= cut


def split(
    backbone: Backbone,
    model: PeftModel,
    cuts: Sequence[int],
    *,
    shared: bool = False,
    frozen_a: bool = False,
    frozen_half: bool = False,
    labels: str = "server",
) -> tuple[DeviceSegment, ServerSegment]:
    """Cut an adapted model for devices with the given cuts and one server.

    Args:
        backbone: what was adapted.
        model: its peft wrapper; peft put the adapters inside ``backbone.model`` in place.
        cuts: blocks kept by each device, one entry a device.
        shared: one server copy for all devices (SFL-V2) instead of one each (SFL-V1).
        frozen_a: keep every A at its common start and train B only.
        frozen_half: train nothing below the cut, which is then one for all devices.
        labels: where the head and the loss live: ``server``, or ``device`` (the U-shape).

    Raises:
        ModelError: a cut outside 0..L, or a trained weight that both sides use.
    """
    device, servers = split_among(
        backbone,
        model,
        cuts,
        [0] * len(cuts),
        shared=shared,
        frozen_a=frozen_a,
        frozen_half=frozen_half,
        labels=labels,
    )
    return device, servers[0]


def split_among(
    backbone: Backbone,
    model: PeftModel,
    cuts: Sequence[int],
    server_of: Sequence[int],
    *,
    shared: bool = False,
    frozen_a: bool = False,
    frozen_half: bool = False,
    labels: str = "server",
    seats: int = 0,
) -> tuple[DeviceSegment, dict[int, ServerSegment]]:
    """Cut an adapted model for several servers: return the devices' side, and server -> its side.

    Args:
        server_of: the server of each device; ``ALL_LOCAL`` for devices that run everything themselves, whose side, from
            the first block to the head, is under that key. Their cuts are 0.
        seats: how many devices have trained numbers at once; 0 for all.

    The others are those of :func:`split`, as are the errors.
    """
    assert model.get_base_model() is backbone.model
    for cut in cuts:
        if not 0 <= cut <= backbone.depth:
            raise ModelError(
                f"cut {cut} is out of range: model {backbone.name!r} has {backbone.depth} blocks, so model.cut must "
                f"be between 0 (only the embedding on the device) and {backbone.depth} (every block)"
            )
    full = isinstance(model, FullModel)
    if full and ALL_LOCAL in server_of:
        raise ModelError(
            'model.trainable = "full" trains the embedding too, which devices that train alone share here; use '
            'model.trainable = "lora", or give every device a server'
        )
    options: dict[str, Any] = {"frozen_a": frozen_a, "frozen_half": frozen_half, "full": full, "seats": seats}
    device = DeviceSegment(backbone, max(cuts), len(cuts), labels=labels, **options)
    servers: dict[int, ServerSegment] = {}
    for server in sorted(set(server_of)):
        own = [cut for cut, name in zip(cuts, server_of, strict=True) if name == server]
        if server == ALL_LOCAL:
            assert not any(own), own
            servers[server] = ServerSegment(backbone, 0, len(own), labels="server", **options)
            continue
        segment = ServerSegment(backbone, min(own), 1 if shared else len(own), labels=labels, **options)
        servers[server] = segment
        for name in device.stack.slots.keys() & segment.stack.slots.keys():
            if device.block_of(name) is None:
                raise ModelError(
                    f"the weight {name.removeprefix(PREFIX)} of model {backbone.name!r} is used on both sides of the "
                    'cut; training it would put one weight on two machines: use model.trainable = "lora"'
                    + (', or model.labels = "device"' if labels == "server" else "")
                )
    return device, servers


def _rows(lengths: Tensor | None, at: slice) -> Tensor | None:
    return None if lengths is None else lengths[at]
