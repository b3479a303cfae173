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
from sflam.model.families import blocks_of
from sflam.model.segment import head_names, piece_of
from sflam.model.structure import completed, family_of


def device_tensors(
    backbone: Backbone,
    model: PeftModel,
    cut: int,
    labels: str,
    *,
    frozen_a: bool = False,
    frozen_half: bool = False,
) -> State:
    """Return name -> tensor of what a device cut at ``cut`` holds frozen.

    With ``frozen_a`` the common A of its adapters are among them, by peft's names; with ``frozen_half`` all of them.

    Raises:
        ModelError: a model split by its structure, whose parts cannot be found by name.
    """
    found: State = {}
    for name in held_parts(backbone, cut, labels):
        piece = piece_of(backbone.model, name)
        if piece is None:
            continue
        for inner, tensor in [*piece.named_parameters(prefix=name), *piece.named_buffers(prefix=name)]:
            plain = inner.replace(".base_layer.", ".").replace(".original_module.", ".")
            if "lora_" not in inner and "modules_to_save" not in inner:
                found[plain] = tensor.detach().to("cpu", copy=True).contiguous()
    if frozen_a or frozen_half:
        blocks = tuple(f"{PREFIX}{backbone.family.path}.{index}." for index in range(cut))
        below = {n: t for n, t in state_of(model).items() if n.startswith(blocks)}
        ours = below if frozen_half else {n: t for n, t in below.items() if "lora_A" in n}
        found |= {n: t.to("cpu").contiguous() for n, t in ours.items()}
    return found


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

    Raises:
        ModelError: the tensors are not those of this model up to this cut.
    """
    config = read_config(folder)
    family = family_of(config.model_type)
    reference = getattr(transformers, family.tasks[task].architecture)
    with quiet(), torch.device("meta"):
        model = reference(config).to(TORCH_DTYPES[dtype])
    for name, tensor in tensors.items():
        if not name.startswith(PREFIX):
            _put(model, name, tensor.to(device))
    backbone = Backbone(model, completed(family, model, task), task, folder, fresh)
    for part in held_parts(backbone, cut, labels):
        piece = piece_of(model, part)
        for inner, held in [] if piece is None else [*piece.named_parameters(), *piece.named_buffers()]:
            if held.is_meta:
                raise ModelError(
                    f"the segment lacks {part}.{inner}; it is of another model or cut, delete it and join again"
                )
    return backbone


def put_adapters(model: PeftModel, tensors: Mapping[str, Tensor]) -> None:
    """Put the sent adapters that are not trained, if there are any, into the adapted model."""
    ours = state_of(model)
    load_state(model, ours | {n: t.to(ours[n]) for n, t in tensors.items() if n.startswith(PREFIX)})


def held_parts(backbone: Backbone, cut: int, labels: str) -> list[str]:
    """Return the full names of the parts of a device; raises ModelError for a model split by its structure."""
    family = backbone.family
    if family.gates:
        raise ModelError(
            f"model {backbone.name!r} was split by its structure, and its parts cannot be sent alone; serve a model of "
            "a known family, or simulate this one with sflam train"
        )
    assert cut <= len(blocks_of(backbone.model, family))
    names = [family.full(name) for name in family.front + family.both]
    names += head_names(backbone) if labels == "device" else []
    return names + [f"{family.path}.{index}" for index in range(cut)]


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
