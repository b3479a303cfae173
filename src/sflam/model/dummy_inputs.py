"""Inputs made from a model's config alone, for trial passes: no tokenizer and no image is needed.

B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sflam.model.families import CAUSAL
from sflam.model.loss import IGNORED

ROWS, TOKENS = 3, 12


def make_inputs(
    model: Any, task: str, draw: torch.Generator
) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
    """Return random inputs, lengths [B] (ragged for text, None for images) and labels for a model's config."""
    config = model.config
    labels = torch.randint(0, max(2, config.num_labels), (ROWS,), generator=draw).to(model.device)
    if model.main_input_name == "pixel_values":
        pixels = torch.randn((ROWS, *pixel_shape(config)), generator=draw, dtype=torch.float64)
        return {"pixel_values": pixels.to(model.device, model.dtype)}, None, labels
    width = min(TOKENS, getattr(config, "max_position_embeddings", TOKENS))
    pad = padding_id(config)
    ids = torch.randint(0, config.vocab_size - 1, (ROWS, width), generator=draw)
    ids[ids >= pad] += 1  # a pad inside a row would shorten it for classes that look for pads
    lengths = torch.tensor([width - (width // 3) * row for row in range(ROWS)]).clamp(min=1)
    padding = valid_tokens(lengths, width) == 0
    ids[padding] = pad
    if task == CAUSAL:
        labels = ids.masked_fill(padding, IGNORED).to(model.device)
    return {"input_ids": ids.to(model.device)}, lengths.to(model.device), labels


def stand_in(model: Any, rows: int, width: int, padding: Tensor | None) -> dict[str, Tensor]:
    """Return inputs of the right shape whose only information is which of their ``width`` tokens are valid.

    Args:
        model: its config names its inputs.
        rows: rows R.
        width: tokens T of a row; a model of images knows its own.
        padding: [R,T] 0/1 mask of valid tokens; None when all are.
    """
    if model.main_input_name == "pixel_values":
        return {
            "pixel_values": torch.zeros(rows, *pixel_shape(model.config), device=model.device).to(model.dtype)
        }
    pad = padding_id(model.config)
    ids = torch.full((rows, width), 0 if pad else 1, device=model.device)
    if padding is None:
        return {"input_ids": ids}
    return {"input_ids": ids.masked_fill(padding == 0, pad), "attention_mask": padding}


def pixel_shape(config: Any) -> tuple[int, int, int]:
    """Return channels, height and width of the images a model reads."""
    config = getattr(config, "vision_config", config)
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return config.num_channels, height, width


def padding_id(config: Any) -> int:
    """Return the id that pads rows, setting it to 0 where the config has none."""
    if config.pad_token_id is None:
        config.pad_token_id = 0
    return int(config.pad_token_id)


def with_mask(inputs: Mapping[str, Tensor], lengths: Tensor | None) -> dict[str, Tensor]:
    """Return a model's inputs with the attention mask of rows of ``lengths`` [B]; None means every row is full."""
    if lengths is None:
        return dict(inputs)
    return {**inputs, "attention_mask": valid_tokens(lengths, inputs["input_ids"].shape[1])}


def valid_tokens(lengths: Tensor, width: int) -> Tensor:
    """Return the [R,T] 0/1 mask of valid tokens of right-padded rows."""
    return (torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]).long()
