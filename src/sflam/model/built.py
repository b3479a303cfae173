"""The shape of a loaded model: its config's where the family is known, else read off its modules.

T tokens, d hidden size.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sflam.errors import ModelError
from sflam.files import from_json
from sflam.model.architecture import Architecture, HeadLayer, Linear, read
from sflam.model.backbone import Backbone
from sflam.model.block_stubs import Reached, split_arguments
from sflam.model.families import CAUSAL, blocks_of

STEPWISE = {"NewGELUActivation", "FastGELUActivation", "QuickGELUActivation", "AccurateGELUActivation"}
"""Activations that transformers computes in several operations, each of which keeps its input."""


def shape_of(backbone: Backbone) -> Architecture:
    """Return the numbers of a loaded model that its cost depends on."""
    config = backbone.model.config
    if not backbone.family.gates:
        task = CAUSAL if backbone.task == CAUSAL else "classification"
        fields = from_json(config.to_json_string(use_diff=False))
        with suppress(ModelError):  # an option that no reader knows
            return read(fields, classes=config.num_labels, task=task)
    return _seen(backbone)


def _seen(backbone: Backbone) -> Architecture:
    """Return the shape of a model as its first block shows it: linear maps in order, the last two of them the MLP's."""
    model, family = backbone.model, backbone.family
    block, hidden = blocks_of(model, family)[0], int(model.config.hidden_size)
    maps = linears(block)
    nothing = Linear("", 0, 0)
    out = maps.pop() if maps else nothing
    mlp_in: list[Linear] = []
    while len(maps) > 2 and maps[-1].outputs in (out.inputs, 2 * out.inputs):
        joint = maps.pop()
        mlp_in += [replace(joint, outputs=out.inputs)] * (joint.outputs // out.inputs)
    after = maps.pop() if maps else nothing
    norms = [
        sum(weight.shape[-1] for name, weight in module.named_parameters() if name == "weight")
        for module in block.modules()
        if "norm" in type(module).__name__.lower()
    ]
    # A norm narrower than d is of each head: of queries and of keys.
    inner = sum(item.outputs for item in maps[:2]) if any(0 < size < hidden for size in norms) else 0
    wide = sum(size == hidden for size in norms)
    dropping = {
        name for name, p in model.config.to_dict().items() if "drop" in name and isinstance(p, float) and p
    }
    front = [model.get_submodule(family.full(name)) for name in family.front]
    words = backbone.task == CAUSAL
    return Architecture(
        family=family.name,
        blocks=backbone.depth,
        hidden=hidden,
        heads=int(getattr(model.config, "num_attention_heads", 0)),
        width=after.inputs,
        projections=tuple(maps),
        output=after,
        mlp_in=tuple(mlp_in),
        mlp_out=out,
        activation_copies=4 if any(type(module).__name__ in STEPWISE for module in block.modules()) else 1,
        block_weights=_weights([block]),
        embed_weights=_weights(front),
        inner_norms=inner + max(0, wide - 2) * hidden,
        dropouts=2
        * any(name == "dropout" or name.startswith(("hidden", "resid", "mlp")) for name in dropping),
        attention_dropout=any("att" in name for name in dropping),
        head=(HeadLayer(hidden, int(model.config.vocab_size), every_token=True, fresh=False, bias=False),)
        if words
        else (HeadLayer(hidden, int(model.config.num_labels)),),
    )


def linears(block: nn.Module) -> list[Linear]:
    """Return the linear maps of a block in the order of its modules, adapted or not."""
    found: list[Linear] = []
    for name, module in block.named_modules():
        if ".base_layer" in name or ".lora_" in name:
            continue
        layer: Any = module.get_base_layer() if isinstance(module, LoraLayer) else module
        if isinstance(layer, nn.Linear):
            found.append(Linear(name, layer.in_features, layer.out_features))
        elif isinstance(layer, Conv1D):
            found.append(Linear(name, *layer.weight.shape))
    return found


def _weights(parts: list[nn.Module]) -> int:
    """Return the numbers of some modules without their adapters."""
    return sum(p.numel() for part in parts for name, p in part.named_parameters() if "lora_" not in name)


def token_shape(backbone: Backbone, sample: dict[str, Tensor]) -> tuple[int, int]:
    """Return T and d of what the first block is given for ``sample``."""
    block = blocks_of(backbone.model, backbone.family)[0]

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise Reached(split_arguments(inspect.signature(block.forward), args, kwargs)[0])

    handle = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad():
            backbone.model(**sample)
    except Reached as end:
        return end.hidden.shape[1], end.hidden.shape[2]
    finally:
        handle.remove()
    raise AssertionError("a model runs its first block")
