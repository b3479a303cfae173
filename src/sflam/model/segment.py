"""One side of a cut model: some of its own modules, with the trained numbers of many devices.

A segment's frozen tensors are shared with the whole model, its trained ones live in an :class:`AdapterStack` with
one row per device. A model split by its structure comes as a copy of the whole, with gates for blocks.

Shapes: R rows (samples of several devices), T tokens, d hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sflam.model.adapters import PREFIX, adapted_blocks
from sflam.model.backbone import Backbone
from sflam.model.block_inputs import Arguments
from sflam.model.block_stubs import WHOLE, Absent
from sflam.model.dummy_inputs import valid_tokens
from sflam.model.families import Family, Finish, blocks_of
from sflam.model.full import Places, WeightStack
from sflam.model.lora import Layout, Rows, StackedLinear, StackedLoRA
from sflam.model.stack import AdapterStack

QUANTIZED = {"state", "quant_state"}


class Segment(nn.Module):
    """Some named modules of a whole model, with stacked adapters.

    Attributes:
        stack: the trained numbers, one row per copy.
        layout: the rows of the batch in flight.
        parts: the modules outside the blocks, by their last name (``embeddings``, ``classifier`` ...).
        blocks: the blocks held, by absolute index.
        has_head: whether head and loss are on this side.
        tuned: the blocks of the whole model that carry adapters.
        tuned_by: device -> those of them that it tunes, where devices differ; in the others it has no adapters.
        checkpointing: whether a block's inside is computed again in the backward, instead of being kept for it.
    """

    checkpointing = False

    def __init__(
        self,
        backbone: Backbone,
        parts: Iterable[str],
        held: range,
        copies: int,
        *,
        has_head: bool,
        frozen_a: bool = False,
        full: bool = False,
        frozen_half: bool = False,
        own: bool = True,
        seats: int = 0,
        tuned: range | None = None,
    ) -> None:
        """Hold the backbone's ``parts``, the blocks ``held``, and the head or not.

        With ``frozen_half`` nothing below the cut is trained; without ``own`` nothing of this side but its head is.

        With ``seats`` only so many copies have trained numbers at once.

        A gated copy holds every part, but not the head of the other side. With ``full`` every weight is trained,
        without adapters. With ``tuned`` only those blocks keep theirs.
        """
        super().__init__()
        family, config = backbone.family, backbone.model.config
        self.has_head, head = has_head, head_names(backbone)
        names = [*map(family.full, parts), *(head if has_head else ())]
        self.head: Finish = backbone.head.finish
        self.frozen_half = frozen_half
        self.tuned = adapted_blocks(backbone) if tuned is None else tuned
        self.tuned_by: dict[int, range] = {}
        self.family: Family = family
        self._path = f"{PREFIX}{family.path}."
        self.config = config
        self.dtype: torch.dtype = backbone.model.dtype
        self.held = held
        self.layout = Layout()
        self.parts = nn.Module()
        self.blocks = nn.ModuleDict()
        path, blocks = family.path, blocks_of(backbone.model, family)
        named = [*names, *(f"{path}.{index}" for index in held)]
        shells = _copies(backbone.model, named if not family.gates else named[len(named) - len(held) :])
        if family.gates:
            stands = {id(block): gate for block, gate in family.gates(blocks).items()}
            stands |= {id(backbone.model.get_submodule(name)): Absent() for name in head if not has_head}
            shells[""] = copy.deepcopy(backbone.model, _shared(backbone.model) | stands)
        # What is trained stays float32 where frozen weights are kept in less.
        dtype = torch.promote_types(backbone.model.dtype, torch.float32)
        initial: dict[str, Tensor] = {}
        self.places: Places | None = None
        if full:
            weights = {f"{PREFIX}{n}": p.detach() for n, p in _weights(backbone.model, named).items()}
            stack = WeightStack(weights, copies, dtype, backbone.model.device, seats)
            self.stack: AdapterStack = stack
            self.places = Places(stack)
            ids = {id(p): f"{PREFIX}{name}" for name, p in backbone.model.named_parameters()}
            for shell in shells.values():
                self.places.add(shell, ids)
            self.places.install(0)  # any: the first rows have seats
        else:
            for name, shell in shells.items():
                if own or name in head or not name:
                    initial |= _trained(f"{PREFIX}{name}".rstrip("."), shell, frozen_a)
            if not own:  # a gated copy is in one piece
                initial = {n: t for n, t in initial.items() if self.block_of(n) is None}
            initial = {n: t for n, t in initial.items() if (b := self.block_of(n)) is None or b in self.tuned}
            self.stack = AdapterStack(initial, copies, dtype, backbone.model.device, seats)
        for name, shell in shells.items():
            shell = shell if full else self._stacked(f"{PREFIX}{name}".rstrip("."), shell)
            if name.startswith(f"{path}."):
                self.blocks[name.rpartition(".")[2]] = shell
            else:
                self.parts.add_module(name.rpartition(".")[2] or WHOLE, shell)

    def _stacked(self, name: str, module: nn.Module) -> nn.Module:
        """Return ``module`` with every adapted layer replaced by its stacked form."""
        tensors = self.stack.tensors
        if isinstance(module, LoraLayer) and self.block_of(f"{name}.") not in self.tuned:
            bare: nn.Module = module.get_base_layer()
            return bare
        if isinstance(module, LoraLayer):
            factors: dict[str, Any] = {"lora_A": module.lora_A, "lora_B": module.lora_B}
            a, b = (
                tensors.get(f"{name}.{key}.weight", _frozen(factor["default"].weight))
                for key, factor in factors.items()
            )
            return StackedLoRA(
                module.get_base_layer(),
                a,
                b,
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
        """Run one block: [R,T,d] -> [R,T,d]; with ``checkpointing`` only its input is kept for the backward."""
        if not (self.checkpointing and torch.is_grad_enabled()):
            return self._block(index, hidden, arguments)
        rows, gathered, masks = self.layout.rows, self.layout.gathered, self.layout.masks
        counts = masks.counts.copy() if masks else []
        installed = self.places.installed if self.places else 0

        def again(entering: Tensor) -> Tensor:
            # By the time of the backward the segment may have been made ready for another batch.
            self.layout.rows, self.layout.gathered = rows, gathered
            if self.places:
                self.places.install(installed)
            with masks.again(counts) if masks else nullcontext():
                return self._block(index, entering, arguments)

        out: Tensor = checkpoint(again, hidden, use_reentrant=False)
        return out

    def _block(self, index: int, hidden: Tensor, arguments: Arguments) -> Tensor:
        self.layout.bare = self._bare(index)
        out: Any = self.blocks[str(index)](hidden, **arguments(index))
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result

    def surroundings(self, hidden: Tensor, lengths: Tensor | None) -> Arguments:
        """Rebuild what the blocks need beside [R,T,d] from lengths [R]; None means every row is full."""
        padding = None if lengths is None else valid_tokens(lengths, hidden.shape[1])
        return self.family.surroundings(self.parts, self.config, hidden, padding)

    def _bare(self, index: int) -> bool:
        """Whether no row of the batch in flight has adapters in a block; copies are devices where this is asked."""
        return False

    def names(self, cut: int | None = None, device: int | None = None) -> list[str]:
        """Return the names of the trained tensors; with ``cut``, those that ``device``, cut there, really has."""
        if cut is None:
            return list(self.stack.slots)
        return [name for name in self.stack.slots if self.holds(name, cut, device)]

    def holds(self, name: str, cut: int, device: int | None = None) -> bool:
        """Whether this side holds the trained tensor ``name`` for a device cut at ``cut``."""
        block = self.block_of(name)
        if block is None:
            return name in self.stack.slots
        return self.holds_block(block, cut) and block in self.blocks_of(device)

    def blocks_of(self, device: int | None) -> range:
        """Return the blocks that a device tunes."""
        return self.tuned if device is None else self.tuned_by.get(device, self.tuned)

    def untuned(self, device_of: Mapping[int, int]) -> dict[int, Tensor]:
        """Return row -> what its device does not tune of it, [P]; empty where all tune all. Of row -> device."""
        if not self.tuned_by or not self.stack.slots:
            return {}
        masks: dict[range, Tensor] = {}
        for device in device_of.values():
            own = self.blocks_of(device)
            if own not in masks:
                masks[own] = torch.zeros(self.stack.size(), dtype=torch.bool, device=self.stack.values.device)
                for name, slot in self.stack.slots.items():
                    block = self.block_of(name)
                    masks[own][slot.columns] = block is not None and block not in own
        return {row: masks[self.blocks_of(device)] for row, device in device_of.items()}

    def holds_block(self, block: int, cut: int) -> bool:
        """Whether this side runs ``block`` for a device cut at ``cut``."""
        raise NotImplementedError

    def answers(self, cut: int, device: int | None = None) -> bool:
        """Whether a device cut at ``cut`` trains anything before the cut, and so wants a gradient."""
        return (cut > self.blocks_of(device).start or self.places is not None) and not self.frozen_half

    def numbers(self) -> int:
        """Return how many numbers one copy of this side holds, frozen and trained."""
        held = sum(parameter.numel() for parameter in self.parameters())
        return held if self.places else held + self.stack.size()

    def passes(self, rows: Rows) -> Iterator[slice]:
        """Make ready for a batch laid out as ``rows`` and yield the rows each pass takes.

        With adapters one pass takes all; with weights of their own devices come one after the other.
        """
        if self.places is None:
            self.layout.rows, self.layout.gathered = rows, self.stack.gather(rows.copies, apart=rows.apart)
            yield slice(None)
            return
        start = 0
        for row, count in zip(rows.copies, rows.counts, strict=True):
            self.places.install(row)
            yield slice(start, start + count)
            start += count

    def block_of(self, name: str) -> int | None:
        """Return the index of the block a trained tensor belongs to, or None outside the blocks."""
        return _block_at(name, self._path)


@cache
def _block_at(name: str, path: str) -> int | None:
    """Return the index in a name below ``path``, of which a model has some hundreds, asked for in every round."""
    return int(name[len(path) :].partition(".")[0]) if name.startswith(path) else None


def _copies(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Return copies of the named parts that share the model's tensors; parts it was built without are left out."""
    found = {name: piece_of(model, name) for name in names}
    memo = _shared(model)
    return {name: copy.deepcopy(piece, memo) for name, piece in found.items() if piece is not None}


def _weights(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the weights below the named parts, each once, by its first name in the whole model."""
    held = {
        id(p) for name in names if (piece := piece_of(model, name)) is not None for p in piece.parameters()
    }
    return {name: p for name, p in model.named_parameters() if id(p) in held}


def head_names(backbone: Backbone) -> list[str]:
    """Return the full names of what runs after the last block."""
    return [*map(backbone.family.full, backbone.family.back), *backbone.head.head]


def piece_of(model: nn.Module, name: str) -> nn.Module | None:
    """Return the named part of a model, or None where this model was built without it."""
    parent, _, last = name.rpartition(".")
    piece: nn.Module | None = getattr(model.get_submodule(parent), last)
    return piece


def _frozen(factor: Tensor) -> Tensor:
    """Return an adapter factor that is common to all and not trained."""
    return nn.Parameter(factor.detach().unsqueeze(0), requires_grad=False)


def _shared(model: nn.Module) -> dict[int, Any]:
    """Return a deepcopy memo that copies modules but keeps their tensors and config common."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    memo[id(model.config)] = model.config
    for module in model.modules():  # where quantized layers keep what belongs to their weights
        for name in QUANTIZED & vars(module).keys():
            memo[id(getattr(module, name))] = getattr(module, name)
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
