"""Is this model, cut, still this model? The check behind ``sflam verify``.

The reference is the unmodified Hugging Face class called with labels; inputs are made from the model's config, so
no tokenizer or image is needed. Adapters get random values first: a fresh LoRA's B is zero and would hide errors.

B rows, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from sflam.model.adapters import attach, load_state, state_of
from sflam.model.backbone import Backbone
from sflam.model.families import CAUSAL, blocks_of
from sflam.model.lora import Rows
from sflam.model.loss import IGNORED, group_losses
from sflam.model.settings import ModelSettings
from sflam.model.split import Arrival, split, valid_tokens

ROWS, TOKENS = 3, 12
EXACT_ZERO = 1e-12
"""Relative to the largest gradient of all: below it a gradient is zero in theory, and compared absolutely."""


@dataclass(frozen=True)
class Difference:
    """The largest relative differences max|a-b| / max|b| at one cut, split against whole."""

    cut: int
    loss: float
    activations: float
    gradients: float

    @property
    def largest(self) -> float:
        """The largest of the three."""
        return max(self.loss, self.activations, self.gradients)


def tolerance(backbone: Backbone) -> float:
    """Return the largest difference that still counts as equal.

    1e-9 in float64 and 1e-5 in float32 (one step); a language model's loss is in float32 in Hugging Face itself,
    whatever the model's precision, which leaves 1e-6.
    """
    if backbone.model.dtype != torch.float64:
        return 1e-5
    return 1e-6 if backbone.task == CAUSAL else 1e-9


def verify(
    backbone: Backbone,
    cuts: Iterable[int],
    settings: ModelSettings | None = None,
    *,
    perturb: float = 0.0,
    seed: int = 0,
) -> Iterator[Difference]:
    """Yield split against whole for each cut.

    Args:
        backbone: the model; adapters are attached to it.
        cuts: blocks on the device.
        settings: rank and targets of the adapters.
        perturb: added to one value at the boundary; above the tolerance the check must fail.
        seed: seed of inputs and adapters.

    Raises:
        ModelError: a cut outside 0..L.
    """
    model = attach(backbone, settings or ModelSettings(), seed=seed)
    draw = torch.Generator().manual_seed(seed)
    load_state(
        model,
        {name: torch.randn(t.shape, generator=draw).to(t) * 0.05 for name, t in state_of(model).items()},
    )
    model.eval()
    inputs, lengths, labels = make_inputs(backbone, draw)
    loss, boundaries, gradients = _whole(backbone, model, inputs, lengths, labels)
    scale = max(float(gradient.abs().max()) for gradient in gradients.values())
    for cut in cuts:
        device, server = split(backbone, model, [cut])
        device.eval(), server.eval()
        rows = Rows((0,), (ROWS,))
        hidden = device(inputs, lengths, cut, rows)
        crossing = hidden.detach().clone()
        crossing[0, 0, 0] += perturb
        crossing.requires_grad_()
        own = group_losses(backbone.task, server([Arrival(cut, crossing, rows)], lengths), labels, (ROWS,))
        (back,) = server.stack.backward(own.sum(), inputs=[crossing])
        if hidden.requires_grad:
            device.stack.backward(hidden, back)
        found = device.stack.gradient(0) | server.stack.gradient(0)
        assert found.keys() == gradients.keys()
        valid = slice(None) if lengths is None else valid_tokens(lengths, hidden.shape[1]).bool()
        yield Difference(
            cut,
            relative(own[0].detach().double(), loss.double()),
            relative(crossing.detach()[valid], boundaries[cut][valid]),
            max(relative(found[name], gradients[name], scale * EXACT_ZERO) for name in gradients),
        )


def relative(a: Tensor, b: Tensor, zero: float = 0.0) -> float:
    """Return max|a-b| / max|b|, or max|a-b| itself where max|b| is at most ``zero``."""
    difference, scale = float((a - b).abs().max()), float(b.abs().max())
    return difference / scale if scale > zero else difference


def make_inputs(backbone: Backbone, draw: torch.Generator) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
    """Return random inputs, lengths [B] (ragged for text, None for images) and labels for a model's config."""
    config, model = backbone.model.config, backbone.model
    labels = torch.randint(0, max(2, config.num_labels), (ROWS,), generator=draw).to(model.device)
    if model.main_input_name == "pixel_values":
        shape = (ROWS, config.num_channels, config.image_size, config.image_size)
        pixels = torch.randn(shape, generator=draw, dtype=torch.float64)
        return {"pixel_values": pixels.to(model.device, model.dtype)}, None, labels
    width = min(TOKENS, getattr(config, "max_position_embeddings", TOKENS))
    pad = config.pad_token_id if config.pad_token_id is not None else 0
    config.pad_token_id = pad
    ids = torch.randint(0, config.vocab_size - 1, (ROWS, width), generator=draw)
    ids[ids >= pad] += 1  # a pad inside a row would shorten it for classes that look for pads
    lengths = torch.tensor([width - (width // 3) * row for row in range(ROWS)]).clamp(min=1)
    padding = ~valid_tokens(lengths, width).bool()
    ids[padding] = pad
    if backbone.task == CAUSAL:
        labels = ids.masked_fill(padding, IGNORED).to(model.device)
    return {"input_ids": ids.to(model.device)}, lengths.to(model.device), labels


def _whole(
    backbone: Backbone, model: PeftModel, inputs: dict[str, Tensor], lengths: Tensor | None, labels: Tensor
) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Return the Hugging Face class's loss, its activations at every cut, and its adapter gradients."""
    blocks = blocks_of(backbone.model, backbone.family)
    boundaries: list[Tensor] = []

    def enter(_: Any, arguments: tuple[Tensor, ...]) -> None:
        boundaries.append(arguments[0].detach())

    def leave(_: Any, __: Any, output: Any) -> None:
        boundaries.append((output[0] if isinstance(output, tuple) else output).detach())

    arguments = dict(inputs, labels=labels)
    if lengths is not None:
        arguments["attention_mask"] = valid_tokens(lengths, inputs["input_ids"].shape[1])
    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(_removal(block.register_forward_pre_hook(enter)))
        hooks.callback(_removal(blocks[-1].register_forward_hook(leave)))
        loss = model(**arguments).loss
    trained = {
        name.replace(".default", "").replace("modules_to_save.", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    found = torch.autograd.grad(loss, list(trained.values()))
    return loss.detach(), boundaries, dict(zip(trained, found, strict=True))


def _removal(handle: Any) -> Callable[[], None]:
    remove: Callable[[], None] = handle.remove
    return remove
