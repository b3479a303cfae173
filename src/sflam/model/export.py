"""The device's part of a model as plain tensors, and a model made of nothing else: the whole stays on the server.

What travels is every frozen tensor of the embedding and of the blocks before the cut (with labels at home, of the head
too), by its name in the whole model. The receiver builds the model's shape without memory (torch's ``meta`` device)
and puts these tensors in; blocks it was not sent stay shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from peft import PeftModel
from torch import Tensor, nn

from sflam.errors import ModelError
from sflam.model.adapters import PREFIX, State, load_state, state_of
from sflam.model.backbone import TORCH_DTYPES, Backbone, quiet, read_config
from sflam.model.families import Family
from sflam.model.layout import PartLayout
from sflam.model.segment import head_names, piece_of
from sflam.model.structure import family_of, laid_out


def device_tensors(
    backbone: Backbone,
    model: PeftModel,
    cut: int,
    labels: str,
    *,
    frozen_a: bool = False,
    frozen_half: bool = False,
    tuned: range | None = None,
) -> State:
    """Return name -> tensor of what a device cut at ``cut`` holds frozen.

    With ``frozen_a`` the common A of its adapters are among them, by peft's names; with ``frozen_half`` all of them;
    with ``tuned`` those of these blocks alone.
    """
    found = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in held_tensors(backbone, cut, labels).items()
    }
    if frozen_a or frozen_half:
        held = [index for index in range(cut) if tuned is None or index in tuned]
        blocks = tuple(f"{PREFIX}{backbone.family.path}.{index}." for index in held)
        below = {n: t for n, t in state_of(model).items() if n.startswith(blocks)}
        ours = below if frozen_half else {n: t for n, t in below.items() if "lora_A" in n}
        found |= {n: t.to("cpu").contiguous() for n, t in ours.items()}
    return found


def trained_head(backbone: Backbone, model: PeftModel) -> State:
    """Return name -> what was trained outside of the blocks, by peft's names; nothing where the head is frozen."""
    blocks = f"{PREFIX}{backbone.family.path}."
    return {n: t.to("cpu").contiguous() for n, t in state_of(model).items() if not n.startswith(blocks)}


def backbone_from(
    folder: str,
    tensors: Mapping[str, Tensor],
    *,
    task: str,
    dtype: str,
    fresh: tuple[str, ...],
    cut: int,
    labels: str,
    device: torch.device,
    layout: PartLayout | None = None,
) -> Backbone:
    """Return a backbone of which only the sent part has numbers.

    Args:
        folder: holds the model's ``config.json``.
        tensors: as from :func:`device_tensors`.
        task: key of the family's tasks.
        dtype: arithmetic, as in ``model.dtype``.
        fresh: the newly initialised layers of the head, as the sender's backbone names them.
        cut: blocks sent.
        labels: where head and loss live.
        device: where to put the tensors.
        layout: where the parts of a model of no known family are, as the sender found them.

    Raises:
        ModelError: the tensors are not those of this model up to this cut, or it has no such parts.
    """
    config = read_config(folder)
    family = family_of(config.model_type)
    reference = getattr(transformers, family.tasks[task].architecture)
    with quiet(), torch.device("meta"):
        model = reference(config).to(TORCH_DTYPES[dtype])
    for name, tensor in tensors.items():
        if not name.startswith(PREFIX):
            _put(model, name, tensor.to(device))
    backbone = Backbone(model, _complete(family, layout, model, task), task, folder, fresh)
    for name, held in held_tensors(backbone, cut, labels).items():
        if held.is_meta:
            raise ModelError(
                f"the segment lacks {name}; it is of another model or cut, delete it and join again"
            )
    return backbone


def _complete(family: Family, layout: PartLayout | None, model: Any, task: str) -> Family:
    """Return the family of a received model; raises ModelError where its parts are not where they should be."""
    if family.blocks:
        return family
    if layout is None:
        raise ModelError(
            f"model type {family.name!r} is in no known family, and the server does not say where its parts are; use "
            "the same version on both sides"
        )
    found = laid_out(family, layout, task)
    try:
        parts = [*map(found.full, found.front + found.back), *layout.head]
        modules = [model.get_submodule(name) for name in parts]
        blocks = model.get_submodule(found.path)
    except AttributeError as error:
        raise ModelError(
            f"the server names a part that {type(model).__name__} does not have ({str(error)[:80]})"
        ) from None
    inside = {id(module) for module in blocks.modules()}
    if not isinstance(blocks, nn.ModuleList) or not len(blocks) or inside & set(map(id, modules)):
        raise ModelError(f"the server names {found.path[:80]}, which is no list of blocks")
    return found


def put_adapters(model: PeftModel, tensors: Mapping[str, Tensor]) -> None:
    """Put the sent adapters that are not trained, if there are any, into the adapted model."""
    ours = state_of(model)
    if unknown := [name for name in tensors if name.startswith(PREFIX) and name not in ours]:
        raise ModelError(f"the segment holds {unknown[0][:80]}, which this model does not have; join again")
    load_state(model, ours | {n: t.to(ours[n]) for n, t in tensors.items() if n.startswith(PREFIX)})


def held_tensors(backbone: Backbone, cut: int, labels: str) -> State:
    """Return name -> frozen tensor, as it is, of the parts of a device cut at ``cut``.

    Of a known family those are named by the table. Of a model split by its structure a device holds all but the other
    blocks and, with the labels at the server, what runs after the last one.
    """
    model, family = backbone.model, backbone.family
    assert cut <= backbone.depth
    names = [family.full(name) for name in family.front + family.both]
    names += head_names(backbone) if labels == "device" else []
    names += [f"{family.path}.{index}" for index in range(cut)]
    if family.gates:
        others = [f"{family.path}.{index}." for index in range(cut, backbone.depth)]
        others += [f"{name}." for name in head_names(backbone)] if labels == "server" else []
        found = {n: t for n, t in _tensors(model, "").items() if not n.startswith(tuple(others))}
    else:
        found = {}
    for name in names:  # a tensor that two parts share is in both
        piece = piece_of(model, name)
        found |= {} if piece is None else _tensors(piece, name)
    return {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): tensor
        for name, tensor in found.items()
        if "lora_" not in name and "modules_to_save" not in name
    }


def _tensors(module: nn.Module, name: str) -> State:
    return {**dict(module.named_parameters(prefix=name)), **dict(module.named_buffers(prefix=name))}


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    parent, _, last = name.rpartition(".")
    try:
        module: Any = model.get_submodule(parent)
        held = module._parameters[last] if last in module._parameters else module._buffers[last]
    except (AttributeError, KeyError):
        raise ModelError(
            f"the segment holds {name[:80]}, which this model does not have; join again"
        ) from None
    if held is None or held.shape != tensor.shape:
        raise ModelError(
            f"the segment's {name} has the shape {list(tensor.shape)}, not the model's; join again"
        )
    if last in module._parameters:
        module._parameters[last] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[last] = tensor
