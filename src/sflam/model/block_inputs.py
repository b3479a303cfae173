"""What a block is given beside its input: masks and positions, rebuilt on either side from lengths alone.

Each function takes the segment's parts, the model's config, the hidden states [R,T,d] and the valid-token mask
[R,T] (None when every row is full), and returns the keyword arguments of block ``index``. The masks are Hugging
Face's own, for whichever attention implementation the model uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_causal_mask,
    create_sliding_window_causal_mask,
)

Arguments = Callable[[int], dict[str, Any]]
Surroundings = Callable[[Any, Any, Tensor, Tensor | None], Arguments]


def bidirectional(parts: Any, config: Any, hidden: Tensor, padding: Tensor | None) -> Arguments:
    """Encoders: every valid token sees every valid token."""
    mask = create_bidirectional_mask(config=config, inputs_embeds=hidden, attention_mask=padding)
    return lambda index: {"attention_mask": mask}


def with_resolution(parts: Any, config: Any, hidden: Tensor, padding: Tensor | None) -> Arguments:
    """BEiT: blocks build relative position biases from the resolution; one may be shared by all of them."""
    resolution = (config.image_size, config.image_size)
    arguments: dict[str, Any] = {"attention_mask": None, "resolution": resolution}
    shared = getattr(parts, "shared_position_bias", None)
    if shared is not None:
        window = tuple(side // config.patch_size for side in resolution)
        arguments["attention_mask"] = shared(window, interpolate_pos_encoding=False, dim_size=hidden.shape[1])
    return lambda index: arguments


def causal(parts: Any, config: Any, hidden: Tensor, padding: Tensor | None) -> Arguments:
    """GPT-2: a token sees its past."""
    mask = create_causal_mask(
        config=config, inputs_embeds=hidden, attention_mask=padding, past_key_values=None
    )
    return lambda index: {"attention_mask": mask}


def rotary(parts: Any, config: Any, hidden: Tensor, padding: Tensor | None) -> Arguments:
    """Llama-like decoders: a token sees its past, or a sliding window of it; positions rotate queries and keys."""
    positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
    angles = parts.rotary_emb(hidden, position_ids=positions)
    options = {
        "config": config,
        "inputs_embeds": hidden,
        "attention_mask": padding,
        "past_key_values": None,
        "position_ids": positions,
    }
    kinds = attention_kinds(config)
    makers = {
        "full_attention": create_causal_mask,
        "sliding_attention": create_sliding_window_causal_mask,
    }
    masks = {kind: makers[kind](**options) for kind in sorted(set(kinds))}
    return lambda index: {
        "attention_mask": masks[kinds[index]],
        "position_embeddings": angles,
        "position_ids": positions,
    }


def attention_kinds(config: Any) -> list[str]:
    """Return ``full_attention`` or ``sliding_attention`` for every block."""
    listed = getattr(config, "layer_types", None)
    if listed is not None:
        return list(listed)
    sliding = getattr(config, "sliding_window", None) is not None
    return ["sliding_attention" if sliding else "full_attention"] * config.num_hidden_layers
