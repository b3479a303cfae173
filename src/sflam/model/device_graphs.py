"""The device half of a model as a :class:`Bundle` of graphs, traced from the product's own segment."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.utils import _pytree as pytree

from sflam.errors import GraphError
from sflam.graph import bundle as roles
from sflam.graph.binding import expect_bound
from sflam.graph.building import pruned, renamed
from sflam.graph.bundle import Binding, Block, BlockKind, Bundle, Piece, Source
from sflam.graph.graph import Graph
from sflam.graph.schedule import scheduled
from sflam.graph.simplify import simplified
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import PREFIX
from sflam.model.aten import lower
from sflam.model.backbone import Backbone
from sflam.model.families import IMAGE
from sflam.model.lower_rank import narrow
from sflam.model.lowering import Constant
from sflam.model.split import DeviceSegment
from sflam.model.tracing import Traced, Tracing

TYPES = {torch.float32: "float32", torch.float64: "float64"}
PLACES = {"layer_idx", "layer_id", "layer_index", "layer_number"}
"""Attributes of a block that say where it stands, which is nothing it computes with."""


@dataclass(frozen=True)
class DeviceHalf:
    """What a bundle is traced from.

    Attributes:
        backbone: the model.
        segment: its part below the cut, with one row of adapters.
        cut: blocks of it.
        tokens: of an image, or the most of a text.
        learn: names the loss, and whether anything is dropped.
        rank: of the adapters; 0 for the model's.
        tuned: the blocks with adapters; None for the model's.
    """

    backbone: Backbone
    segment: DeviceSegment
    cut: int
    tokens: int
    learn: LearnSettings
    rank: int = 0
    tuned: range | None = None

    @property
    def text(self) -> bool:
        """Whether it reads texts."""
        return self.backbone.task != IMAGE


def device_half(
    backbone: Backbone,
    model: PeftModel,
    cut: int,
    *,
    labels: str,
    tokens: int,
    learn: LearnSettings,
    rank: int = 0,
    tuned: range | None = None,
) -> DeviceHalf:
    """Return the half of a device cut at ``cut``, with random adapters, which shares its frozen tensors.

    Its adapters have the first ``rank`` components of the model's, scaled as there; 0 takes all. With ``tuned`` only
    those blocks have any.

    Raises:
        GraphError: such a half cannot become graphs.
    """
    if backbone.model.dtype not in TYPES:
        raise GraphError(f"model.dtype is {backbone.model.dtype}; graphs are in float32 or float64")
    segment = DeviceSegment(
        backbone,
        cut,
        1,
        labels=labels,
        frozen_a=learn.practice.aggregation == "freeze-a",
        frozen_half=learn.practice.device_half == "frozen",
        tuned=tuned,
    )
    _with_own_config(segment)
    if rank:
        narrow(segment, rank)
    segment.train(learn.cache == "off")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        noise = torch.randn(segment.stack.values.shape, generator=draw) * 0.05
        segment.stack.values += noise.to(segment.stack.values)
    return DeviceHalf(backbone, segment, cut, tokens, learn, rank, tuned)


def _with_own_config(segment: DeviceSegment) -> None:
    """Give a segment a config of its own: how attention is computed is set there, and others use the model's."""
    shared, own = segment.config, copy.deepcopy(segment.config)
    for module in segment.modules():
        if vars(module).get("config") is shared:
            vars(module)["config"] = own


class _Names:
    """Which input of ours a tensor of the model is."""

    def __init__(self, half: DeviceHalf) -> None:
        segment, model = half.segment, half.backbone.model
        self.trained = segment.stack.slots
        self.found: dict[tuple[int, int], Constant] = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            plain = name.replace(".base_layer.", ".").replace(".original_module.", ".")
            if "lora_" in name:
                plain = f"{PREFIX}{name.replace('.default', '')}"
            if half.rank and name.endswith(
                "lora_A.default.weight"
            ):  # frozen: what a device of its rank holds
                tensor = tensor[: half.rank]
            self.found.setdefault(_key(tensor), Constant(plain, tuple(tensor.shape), weight=True))
        for name, tensor in segment.stack.tensors.items():
            self.found[_key(tensor)] = Constant(name, tuple(tensor.shape[1:]), weight=False)

    def __call__(self, tensor: Tensor) -> Constant | None:
        """Return the input that a tensor is, or None."""
        return self.found.get(_key(tensor))

    def source(self, name: str) -> Source:
        """Return where an input of that name comes from."""
        return Source(roles.TRAINED if name in self.trained else roles.FROZEN, name)


def _key(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def bundle_of(half: DeviceHalf) -> Bundle:
    """Trace, lower and simplify every piece of a half; raises GraphError."""
    segment, cut = half.segment, half.cut
    if segment.places is not None:
        raise GraphError('model.trainable is "full"; graphs train adapters and new heads only')
    names, tracing = _Names(half), Tracing(segment, text=half.text)
    embed = tracing.embed(cut)
    kinds: list[BlockKind] = []
    kept: dict[Any, tuple[int, dict[str, Source], dict[str, Source]]] = {}
    blocks: list[Block] = []
    trained_below = False
    for index in range(cut):
        own = [name for name in segment.names(cut) if segment.block_of(name) == index]
        trains = bool(own or trained_below) and segment.answers(cut)
        key = (_signature(tracing, index, cut), trains, trained_below)
        place = f"{segment.family.path}.{index}."
        if key not in kept:
            kind, inputs, outputs = _block(
                tracing, names, index, cut, own if trains else [], trains, trained_below
            )
            kept[key] = len(kinds), _relative(inputs, place), _relative(outputs, place)
            kinds.append(kind)
        number, inputs, outputs = kept[key]
        blocks.append(Block(number, Binding(_absolute(inputs, place), _absolute(outputs, place))))
        trained_below |= bool(own)
    head = _head(tracing, names, half) if segment.has_head else None
    used = sorted(
        {s.name for block in blocks for s in block.binding.inputs.values() if s.role == roles.SURROUNDING},
        key=lambda name: int(name[1:]),
    )
    below = segment.answers(cut)
    held = [name for name in segment.names(cut) if below or segment.block_of(name) is None]
    bundle = Bundle(
        cut=cut,
        dim=int(tracing.hidden.shape[-1]) if tracing.hidden is not None else 0,
        text=half.text,
        tokens=half.tokens,
        task=half.backbone.task,
        dtype=TYPES[half.backbone.model.dtype],
        embed=_embed(embed, names, tracing, used),
        kinds=tuple(kinds),
        blocks=tuple(blocks),
        head=head,
        trained={name: tuple(segment.stack.slots[name].shape) for name in held},
    )
    expect_bound(bundle)
    return bundle


def shortened(bundle: Bundle, cut: int) -> Bundle:
    """Return the bundle of a device of the same model that keeps fewer blocks."""
    blocks = bundle.blocks[:cut]
    kinds = sorted({block.kind for block in blocks})
    given = [block.binding.inputs.values() for block in blocks]
    used = {source.name for sources in given for source in sources if source.role == roles.SURROUNDING}
    graph, binding = bundle.embed.graph, bundle.embed.binding
    kept = [name for name in graph.outputs if binding.outputs[name].name in used | {""}]
    graph = pruned(graph, kept)
    embed = Binding(
        {name: binding.inputs[name] for name in graph.inputs}, {name: binding.outputs[name] for name in kept}
    )
    places = [*(block.binding for block in blocks), *([bundle.head.binding] if bundle.head else [])]
    trained = {source.name for each in places for source in each.outputs.values()}
    shorter = replace(
        bundle,
        cut=cut,
        embed=Piece(graph, embed),
        kinds=tuple(bundle.kinds[kind] for kind in kinds),
        blocks=tuple(replace(block, kind=kinds.index(block.kind)) for block in blocks),
        trained={name: shape for name, shape in bundle.trained.items() if name in trained},
    )
    expect_bound(shorter)
    return shorter


def _finished(graph: Graph, outputs: Sequence[tuple[str, str]]) -> Graph:
    """Return the part of a graph that makes ``outputs`` (old name, new name), simplified and in a good order."""
    wanted = [old for old, _ in outputs]
    part = simplified(graph, wanted)
    now = dict(zip(part.outputs, (new for _, new in outputs), strict=True))
    return renamed(scheduled(part), now)


def _embed(traced: Traced, names: _Names, tracing: Tracing, used: Sequence[str]) -> Piece:
    graph, returned = lower(traced.module, ["sample"], traced.symbol, names)
    outputs = [(str(returned[0]), "hidden")]
    outputs += [(str(returned[1 + int(name[1:])]), name) for name in used]
    graph = _finished(graph, outputs)
    places = {"hidden": Source(roles.HIDDEN), **{name: Source(roles.SURROUNDING, name) for name in used}}
    inputs = {
        name: Source(roles.SAMPLE, tracing.sample_name) if name == "sample" else names.source(name)
        for name in graph.inputs
    }
    return Piece(graph, Binding(inputs, places))


def _block(
    tracing: Tracing, names: _Names, index: int, cut: int, own: Sequence[str], trains: bool, below: bool
) -> tuple[BlockKind, dict[str, Source], dict[str, Source]]:
    """Return the graphs of one block, and what their inputs and outputs are."""
    traced, around = tracing.block(index, cut, own)
    given = ["hidden", "gradient", *(f"s{number}" for number in around)]
    graph, returned = lower(traced.module, given, traced.symbol, names)
    out, back, *grads = returned
    place = f"{tracing.segment.family.path}.{index}."
    outputs: dict[str, Source] = {"hidden_out": Source(roles.HIDDEN)}
    forward = _finished(graph, [(str(out), "hidden_out")])
    joint = None
    if trains:
        wanted = [(back, "gradient_out", Source(roles.GRADIENT))] if below else []
        wanted += [
            (grad, f"grad.{_local(name, place)}", Source(roles.TRAINED, name))
            for name, grad in zip(own, grads, strict=True)
        ]
        missing = [source.name for name, _, source in wanted if name is None]
        if missing:
            raise GraphError(f"block {index} trains {missing[0]}, but does not use it")
        joint = _finished(graph, [(str(name), new) for name, new, _ in wanted])
        outputs |= {new: source for _, new, source in wanted}
    fixed = {"hidden": Source(roles.HIDDEN), "gradient": Source(roles.GRADIENT)}
    fixed |= {f"s{number}": Source(roles.SURROUNDING, f"s{number}") for number in around}
    inputs: dict[str, Source] = {}
    graphs = []
    for each in (forward, joint):
        if each is not None:
            local = {name: name if name in fixed else _local(name, place) for name in each.inputs}
            inputs |= {local[name]: fixed.get(name) or names.source(name) for name in each.inputs}
            graphs.append(_with_inputs(each, local))
    return BlockKind(graphs[0], graphs[1] if len(graphs) > 1 else None), inputs, outputs


def _head(tracing: Tracing, names: _Names, half: DeviceHalf) -> Piece:
    segment = half.segment
    own = [name for name in segment.names(half.cut) if segment.block_of(name) is None]
    traced = tracing.head(half.backbone.task, half.learn, own)
    graph, returned = lower(traced.module, ["hidden", "labels", "share"], traced.symbol, names)
    places = {"loss": Source(roles.LOSS), "gradient_out": Source(roles.GRADIENT)}
    places |= {f"grad.{name}": Source(roles.TRAINED, name) for name in own}
    graph = _finished(graph, [(str(name), new) for name, new in zip(returned, places, strict=True)])
    fixed = {"hidden": Source(roles.HIDDEN), "labels": Source(roles.LABELS), "share": Source(roles.SHARE)}
    inputs = {name: fixed.get(name) or names.source(name) for name in graph.inputs}
    return Piece(graph, Binding(inputs, places))


def _signature(tracing: Tracing, index: int, cut: int) -> Any:
    """Return what two blocks must share to be of one kind: modules, their plain attributes, tensors, surroundings."""
    segment = tracing.segment
    block, place = segment.blocks[str(index)], f"{PREFIX}{segment.family.path}.{index}."
    modules = [
        (
            name,
            type(module).__qualname__,
            sorted(
                (key, repr(value))
                for key, value in vars(module).items()
                if isinstance(value, bool | int | float | str | type(None)) and key not in PLACES
            ),
            [(key, tuple(t.shape)) for key, t in vars(module).items() if isinstance(t, Tensor)],
        )
        for name, module in block.named_modules()
    ]
    held = [(name, tuple(t.shape)) for name, t in [*block.named_parameters(), *block.named_buffers()]]
    own = [name.removeprefix(place) for name in segment.names() if segment.block_of(name) == index]
    arguments, every = tracing.arguments(cut)
    leaves, structure = pytree.tree_flatten(dict(arguments(index)))
    given = [
        [number for number, each in enumerate(every) if each is leaf]
        if isinstance(leaf, Tensor)
        else repr(leaf)
        for leaf in leaves
    ]
    return repr((modules, held, own, given, structure))


def _local(name: str, place: str) -> str:
    """Return the name of a tensor inside its block."""
    return name.removeprefix(PREFIX).removeprefix(place)


def _relative(sources: dict[str, Source], place: str) -> dict[str, Source]:
    return {key: Source(s.role, s.name.replace(place, "{block}.")) for key, s in sources.items()}


def _absolute(sources: dict[str, Source], place: str) -> dict[str, Source]:
    return {key: Source(s.role, s.name.replace("{block}.", place)) for key, s in sources.items()}


def _with_inputs(graph: Graph, names: dict[str, str]) -> Graph:
    """Return the graph with its inputs named anew."""
    operations = tuple(
        type(each)(
            each.kind,
            tuple(names.get(x, x) if isinstance(x, str) else x for x in each.inputs),
            each.outputs,
            each.attributes,
        )
        for each in graph.operations
    )
    return Graph(
        tuple(names[name] for name in graph.inputs),
        graph.outputs,
        {names.get(name, name): value for name, value in graph.values.items()},
        operations,
        frozenset(names[name] for name in graph.weights),
    )
