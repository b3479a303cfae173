"""LoRA through peft, attached to the whole model before it is cut, so that names survive the cut."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sflam.errors import ModelError, unknown
from sflam.model.backbone import Backbone
from sflam.model.families import blocks_of
from sflam.model.full import FullModel
from sflam.model.settings import ModelSettings
from sflam.model.tuned import tuned_blocks
from sflam.seeds import derive

PREFIX = "base_model.model."
"""What peft puts before every name of the wrapped model, in memory and in saved adapters."""

State = dict[str, Tensor]
_PLACES: WeakKeyDictionary[PeftModel, dict[str, str]] = WeakKeyDictionary()
"""Model -> peft's name of every trained tensor -> where it is; peft looks through all of the model each time."""


def attach(backbone: Backbone, settings: ModelSettings, *, seed: int = 0) -> PeftModel:
    """Wrap the whole model with LoRA on the chosen linear layers, and train its head where that is due.

    With ``trainable = "full"`` nothing is attached: every weight is trained.

    Args:
        backbone: the model; it is modified in place by peft.
        settings: rank, alpha, dropout, targets, whether a head that is not new is trained, and an adapter to go on
            from.
        seed: seed of the run; A is drawn from its ``init`` stream, B starts at zero.

    Raises:
        ModelError: a target names no linear layer of the blocks, the head shares its weight with the embedding, or
            the adapter to go on from does not fit.
    """
    if settings.trainable == "full":
        return cast(PeftModel, FullModel(backbone.model))
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft divides it; an integer is only its habit
        lora_dropout=settings.dropout,
        target_modules=target_pattern(backbone, settings.targets, settings.tuned),
        modules_to_save=trained_heads(backbone, settings) or None,
        # Conv1D (GPT-2) keeps its weight transposed; passed here, so that peft does not warn.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in backbone.model.modules()),
    )
    with torch.random.fork_rng(devices=[]), _peft_quiet():
        torch.manual_seed(derive(seed, "init", 1))
        model = get_peft_model(backbone.model, config)
    model.peft_config["default"].base_model_name_or_path = backbone.name
    if backbone.model.dtype == torch.bfloat16:
        _master_precision(model)
    if settings.adapter:
        load_state(model, read_state(Path(settings.adapter).expanduser(), state_of(model)))
    return model


def trained_heads(backbone: Backbone, settings: ModelSettings) -> list[str]:
    """Return the names of the linear layers of the head that are trained in full."""
    if settings.trainable == "lora":
        return list(backbone.fresh)
    heads = [
        name
        for name, module in backbone.model.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[0] in backbone.head.head
    ]
    embedded = backbone.model.get_input_embeddings()
    shared = getattr(embedded, "weight", None)
    for name in heads:
        if shared is not None and backbone.model.get_submodule(name).weight is shared:
            raise ModelError(
                f"the head {name} of model {backbone.name!r} shares its weight with the embedding, which stands on the "
                'device; training it would put one weight on two machines: use model.trainable = "lora"'
            )
    return sorted({*heads, *backbone.fresh})


def read_state(folder: Path, like: Mapping[str, Tensor]) -> State:
    """Return the adapter saved in ``folder``; raises ModelError unless it has the names and shapes of ``like``."""
    try:
        found = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"model.adapter: {folder} holds no adapter that can be read ({str(error).splitlines()[0]}); give the "
            "adapter folder of a finished run"
        ) from error
    strange = sorted(found.keys() ^ like.keys()) or [n for n in found if found[n].shape != like[n].shape]
    if strange:
        raise ModelError(
            f"model.adapter: the adapter in {folder} does not fit this job at {strange[0]}; use the model, rank, "
            "targets and classes it was trained with"
        )
    return {name: found[name].to(tensor) for name, tensor in like.items()}


def target_pattern(backbone: Backbone, targets: tuple[str, ...], tuned: int = 0) -> str:
    """Return the regular expression of the full names of the adapted layers.

    ``targets`` are last names (``q_proj``) or dotted ends (``attention.q_proj``); empty means every linear layer
    of the blocks. ``tuned`` is ``model.tuned``.
    """
    ends = sorted(
        {
            name
            for block in blocks_of(backbone.model, backbone.family)
            for name, module in block.named_modules()
            if isinstance(module, nn.Linear | Conv1D)
        }
    )
    chosen = []
    for target in targets:
        found = [end for end in ends if end == target or end.endswith(f".{target}")]
        if not found:
            raise ModelError(
                unknown("model.targets entry", target, {end.rpartition(".")[2] for end in ends} | set(ends))
            )
        chosen += found
    path = re.escape(backbone.family.path)
    depth = backbone.depth
    chosen_blocks = tuned_blocks(tuned, depth, backbone.name)
    index = r"\d+" if len(chosen_blocks) == depth else f"(?:{'|'.join(map(str, chosen_blocks))})"
    return rf"{path}\.{index}\.(?:{'|'.join(re.escape(end) for end in sorted(set(chosen)) or ends)})"


def state_of(model: PeftModel) -> State:
    """Return a copy of every trained tensor by peft's name (``PREFIX`` + module + ``lora_A.weight`` ...)."""
    return {name: tensor.detach().clone() for name, tensor in _trained(model).items()}


def parameters_of(model: PeftModel) -> dict[str, nn.Parameter]:
    """Return every trained parameter by the name that :func:`state_of` gives its tensor."""
    own = {tensor.data_ptr(): name for name, tensor in _trained(model).items()}
    found = {own[p.data_ptr()]: p for p in model.parameters() if p.requires_grad and p.data_ptr() in own}
    assert len(found) == sum(p.requires_grad for p in model.parameters()), "each is sent under a name"
    return found


def load_state(model: PeftModel, state: Mapping[str, Tensor]) -> None:
    """Write ``state`` (as from :func:`state_of`) into the model in place."""
    own = _trained(model)
    assert own.keys() == state.keys(), sorted(own.keys() ^ state.keys())
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def save(model: PeftModel, folder: Path) -> None:
    """Write ``folder`` so that plain ``PeftModel.from_pretrained(base, folder)`` loads it; its card is the run's."""
    vars(model)["create_or_update_model_card"] = lambda _: None
    try:
        with _peft_quiet():
            model.save_pretrained(str(folder), save_embedding_layers=False)
    finally:
        del vars(model)["create_or_update_model_card"]


def reopen(backbone: Backbone, folder: Path) -> PeftModel:
    """Return the whole model with the adapter saved in ``folder``; raises ModelError when it does not fit."""
    try:
        with _peft_quiet():
            return PeftModel.from_pretrained(backbone.model, str(folder))
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the adapter in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error


def _peft_quiet() -> warnings.catch_warnings[None]:
    """Silence peft's warnings about a name of transformers that is being retired."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)


def _trained(model: PeftModel | FullModel) -> State:
    if isinstance(model, FullModel):
        return model.trained()
    if model not in _PLACES:
        every = model.state_dict()
        places = {id(tensor): place for place, tensor in every.items()}
        # Left to itself, peft asks the hub whether the vocabulary has grown.
        found: State = get_peft_model_state_dict(model, state_dict=every, save_embedding_layers=False)
        _PLACES[model] = {name: places[id(tensor)] for name, tensor in found.items()}
    return {name: _tensor(model, place) for name, place in _PLACES[model].items()}


def _tensor(model: nn.Module, place: str) -> Tensor:
    path, _, name = place.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), name)
    return tensor.detach()


def _master_precision(model: Any) -> None:
    """Keep what is trained in float32 while the frozen weights are bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def adapted_blocks(backbone: Backbone) -> range:
    """Return the blocks of an adapted model that carry adapters; all where every weight is trained."""
    found = [
        index
        for index, block in enumerate(blocks_of(backbone.model, backbone.family))
        if any(hasattr(module, "lora_A") for module in block.modules())
    ]
    return range(found[0], found[-1] + 1) if found else range(backbone.depth)


def adapted_layers(model: PeftModel) -> dict[str, Any]:
    """Return the adapted layers of a peft model, by the names its saved adapters use."""
    return layers_of(model.get_base_model())


def layers_of(base: nn.Module) -> dict[str, Any]:
    """Return the adapted layers of the model that a peft model adapted in place, by the same names."""
    found = base.named_modules()
    return {f"{PREFIX}{name}": module for name, module in found if hasattr(module, "lora_A")}
