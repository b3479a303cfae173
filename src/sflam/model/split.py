"""Cutting an adapted model: the device keeps the embedding and the first blocks, the server the rest.

A segment is made of the Hugging Face model's own modules; its frozen tensors are shared with the whole model, its
trained ones live in an :class:`AdapterStack` with one row per device. Composition equals the whole model for every
cut 0..L; devices with different cuts may share one pass.

Shapes: R rows (samples of several devices), T tokens, d hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from sflam.errors import ModelError
from sflam.model.adapters import PREFIX
from sflam.model.backbone import Backbone
from sflam.model.families import Family, Finish, blocks_of
from sflam.model.gates import WHOLE, Absent
from sflam.model.lora import Layout, Rows, StackedLinear, StackedLoRA
from sflam.model.probe import valid_tokens
from sflam.model.stack import AdapterStack
from sflam.model.surroundings import Arguments


class Segment(nn.Module):
    """Some named modules of a whole model, with stacked adapters.

    Attributes:
        stack: the trained numbers, one row per copy.
        layout: the rows of the batch in flight.
        parts: the modules outside the blocks, by their last name (``embeddings``, ``classifier`` ...).
        blocks: the blocks held, by absolute index.
    """

    def __init__(
        self,
        backbone: Backbone,
        names: Iterable[str],
        held: range,
        copies: int,
        frozen_a: bool,
        absent: Iterable[str] = (),
    ) -> None:
        """Hold the parts ``names`` and the blocks ``held``; a gated copy holds every part but those ``absent``."""
        super().__init__()
        family, config = backbone.family, backbone.model.config
        self.family: Family = family
        self.config = config
        self.dtype: torch.dtype = backbone.model.dtype
        self.held = held
        self.layout = Layout()
        self.parts = nn.Module()
        self.blocks = nn.ModuleDict()
        path, blocks = family.path, blocks_of(backbone.model, family)
        shells = {} if family.gates else _copies(backbone.model, names)
        shells |= _copies(backbone.model, [f"{path}.{index}" for index in held])
        if family.gates:
            stands = {id(block): gate for block, gate in family.gates(blocks).items()}
            stands |= {id(backbone.model.get_submodule(name)): Absent() for name in absent}
            shells[""] = copy.deepcopy(backbone.model, _shared(backbone.model) | stands)
        initial: dict[str, Tensor] = {}
        for name, shell in shells.items():
            initial |= _trained(f"{PREFIX}{name}".rstrip("."), shell, frozen_a)
        # What is trained stays float32 where frozen weights are kept in less.
        dtype = torch.promote_types(backbone.model.dtype, torch.float32)
        self.stack = AdapterStack(initial, copies, dtype, backbone.model.device)
        for name, shell in shells.items():
            shell = self._stacked(f"{PREFIX}{name}".rstrip("."), shell)
            if name.startswith(f"{path}."):
                self.blocks[name.rpartition(".")[2]] = shell
            else:
                self.parts.add_module(name.rpartition(".")[2] or WHOLE, shell)

    def _stacked(self, name: str, module: nn.Module) -> nn.Module:
        """Return ``module`` with every adapted layer replaced by its stacked form."""
        tensors = self.stack.tensors
        if isinstance(module, LoraLayer):
            frozen = nn.Parameter(module.lora_A["default"].weight.detach().unsqueeze(0), requires_grad=False)  # type: ignore[operator]
            return StackedLoRA(
                module.get_base_layer(),
                tensors.get(f"{name}.lora_A.weight", frozen),
                tensors[f"{name}.lora_B.weight"],
                module.scaling["default"],
                getattr(module.lora_dropout["default"], "p", 0.0),
                self.layout,
            )
        if isinstance(module, ModulesToSaveWrapper):
            return StackedLinear(tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), self.layout)
        for child, inner in list(module.named_children()):
            setattr(module, child, self._stacked(f"{name}.{child}", inner))
        return module

    def run(self, index: int, hidden: Tensor, arguments: Arguments) -> Tensor:
        """Run one block: [R,T,d] -> [R,T,d]."""
        out: Any = self.blocks[str(index)](hidden, **arguments(index))
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result

    def surroundings(self, hidden: Tensor, lengths: Tensor | None) -> Arguments:
        """Rebuild what the blocks need beside [R,T,d] from lengths [R]; None means every row is full."""
        padding = None if lengths is None else valid_tokens(lengths, hidden.shape[1])
        return self.family.surroundings(self.parts, self.config, hidden, padding)

    def names(self, cut: int | None = None) -> list[str]:
        """Return the names of the trained tensors; with ``cut``, those that a device cut there really has."""
        return list(self.stack.slots) if cut is None else [n for n in self.stack.slots if self.holds(n, cut)]

    def holds(self, name: str, cut: int) -> bool:
        """Whether this side holds the trained tensor ``name`` for a device cut at ``cut``."""
        raise NotImplementedError

    def block_of(self, name: str) -> int | None:
        """Return the index of the block a trained tensor belongs to, or None outside the blocks."""
        path = f"{PREFIX}{self.family.path}."
        return int(name[len(path) :].partition(".")[0]) if name.startswith(path) else None


class DeviceSegment(Segment):
    """Embedding and blocks before the cut; with labels at home, also what runs after the last block."""

    def __init__(
        self, backbone: Backbone, cut: int, copies: int = 1, *, frozen_a: bool = False, labels: str = "server"
    ) -> None:
        """Hold blocks 0..``cut``-1 with ``copies`` rows of adapters, and the head when labels stay here."""
        family = backbone.family
        names = [family.full(name) for name in family.front + family.both]
        at_home = labels == "device"
        head = head_names(backbone)
        absent = [] if at_home else head
        super().__init__(backbone, names + at_home * head, range(cut), copies, frozen_a, absent)
        self.at_home = at_home
        self._finish: Finish = backbone.head.finish

    def forward(self, inputs: Mapping[str, Tensor], lengths: Tensor | None, cut: int, rows: Rows) -> Tensor:
        """Return the activations at ``cut``, [R,T,d], of a batch laid out as ``rows``."""
        self.layout.rows = rows
        hidden = self.family.embed(self.parts, inputs)
        if not cut:
            return hidden
        arguments = self.surroundings(hidden, lengths)
        for index in range(cut):
            hidden = self.run(index, hidden, arguments)
        return hidden

    def finish(self, hidden: Tensor, lengths: Tensor | None, rows: Rows) -> Tensor:
        """Return the logits from the activations after the last block, [R,T,d]; only with labels at home."""
        self.layout.rows = rows
        return self._finish(self.parts, hidden.to(self.dtype), lengths)

    def holds(self, name: str, cut: int) -> bool:
        """Whether a device cut at ``cut`` trains ``name`` itself."""
        block = self.block_of(name)
        return self.at_home if block is None else block < cut


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
        self, backbone: Backbone, cut: int, copies: int = 1, *, frozen_a: bool = False, labels: str = "server"
    ) -> None:
        """Hold blocks ``cut``..L-1, and the head when labels come here, with ``copies`` rows of adapters."""
        family = backbone.family
        names = [family.full(name) for name in family.both]
        has_head = labels == "server"
        held = range(cut, backbone.depth)
        head = head_names(backbone)
        absent = [] if has_head else head
        super().__init__(backbone, names + has_head * head, held, copies, frozen_a, absent)
        self.has_head = has_head
        self._finish: Finish = backbone.head.finish
        self.depth = backbone.depth

    def forward(self, arrivals: Sequence[Arrival], lengths: Tensor | None) -> Tensor:
        """Return the logits of all rows, or, without the head, their activations after the last block.

        Args:
            arrivals: in order of their cuts, all padded to the same T.
            lengths: [R] valid tokens of every row in the order of arrival; None when all are full.
        """
        pending = list(arrivals)
        hidden = pending[0].hidden.new_empty(0)
        arguments: Arguments | None = None
        for index in range(pending[0].cut, self.depth + 1):
            if pending and pending[0].cut == index:
                arrival = pending.pop(0)
                entering = arrival.hidden.to(self.dtype)
                hidden = torch.cat([hidden, entering]) if hidden.numel() else entering
                self.layout.rows = arrival.rows
                arguments = None
            if index < self.depth:
                if arguments is None:
                    arguments = self.surroundings(hidden, None if lengths is None else lengths[: len(hidden)])
                hidden = self.run(index, hidden, arguments)
        return self._finish(self.parts, hidden, lengths) if self.has_head else hidden

    def holds(self, name: str, cut: int) -> bool:
        """Whether the server trains ``name`` for a device cut at ``cut``."""
        block = self.block_of(name)
        return self.has_head if block is None else block >= cut


def split(
    backbone: Backbone,
    model: PeftModel,
    cuts: Sequence[int],
    *,
    shared: bool = False,
    frozen_a: bool = False,
    labels: str = "server",
) -> tuple[DeviceSegment, ServerSegment]:
    """Cut an adapted model for devices with the given cuts.

    Args:
        backbone: what was adapted.
        model: its peft wrapper; peft put the adapters inside ``backbone.model`` in place.
        cuts: blocks kept by each device, one entry a device.
        shared: one server copy for all devices (SFL-V2) instead of one each (SFL-V1).
        frozen_a: keep every A at its common start and train B only.
        labels: where the head and the loss live: ``server``, or ``device`` (the U-shape).

    Raises:
        ModelError: a cut outside 0..L.
    """
    assert model.get_base_model() is backbone.model
    for cut in cuts:
        if not 0 <= cut <= backbone.depth:
            raise ModelError(
                f"cut {cut} is out of range: model {backbone.name!r} has {backbone.depth} blocks, so model.cut must "
                f"be between 0 (only the embedding on the device) and {backbone.depth} (every block)"
            )
    device = DeviceSegment(backbone, max(cuts), len(cuts), frozen_a=frozen_a, labels=labels)
    server = ServerSegment(backbone, min(cuts), 1 if shared else len(cuts), frozen_a=frozen_a, labels=labels)
    return device, server


def head_names(backbone: Backbone) -> list[str]:
    """Return the full names of what runs after the last block."""
    family = backbone.family
    return [family.full(name) for name in family.back] + list(backbone.head.head)


def _copies(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Return copies of the named parts that share the model's tensors; parts it was built without are left out."""
    found = {name: _piece(model, name) for name in names}
    memo = _shared(model)
    return {name: copy.deepcopy(piece, memo) for name, piece in found.items() if piece is not None}


def _piece(model: nn.Module, name: str) -> nn.Module | None:
    """Return the named part of a model, or None where this model was built without it."""
    parent, _, last = name.rpartition(".")
    piece: nn.Module | None = getattr(model.get_submodule(parent), last)
    return piece


def _shared(model: nn.Module) -> dict[int, Any]:
    """Return a deepcopy memo that copies modules but keeps their tensors and config common."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    memo[id(model.config)] = model.config
    return memo


def _trained(name: str, module: nn.Module, frozen_a: bool) -> dict[str, Tensor]:
    """Return the trained tensors below ``module`` by peft's names."""
    found: dict[str, Tensor] = {}
    for inner, layer in module.named_modules(prefix=name):
        if isinstance(layer, LoraLayer):
            factors: dict[str, Any] = {"lora_A": layer.lora_A["default"], "lora_B": layer.lora_B["default"]}
            if frozen_a:
                del factors["lora_A"]
            found |= {f"{inner}.{key}.weight": factor.weight.detach() for key, factor in factors.items()}
        elif isinstance(layer, ModulesToSaveWrapper):
            saved: Any = layer.modules_to_save["default"]
            found |= {f"{inner}.{key}": tensor.detach() for key, tensor in saved.named_parameters()}
    return found
