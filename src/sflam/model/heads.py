"""What runs before and after the blocks, family by family: a few lines each, named after what they do.

``parts`` holds the modules of a segment by their last names. Shapes: B rows, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# The parts of a model have no types.
# mypy: disable-error-code="no-any-return"


def embed_image(parts: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Patches of ``pixel_values`` [B,C,H,W], in the precision of the weights."""
    dtype = next(parts.embeddings.parameters()).dtype
    return parts.embeddings(inputs["pixel_values"].to(dtype))


def embed_tokens_and_positions(parts: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """BERT-like: one module adds words, positions and types of ``input_ids`` [B,T]."""
    return parts.embeddings(input_ids=inputs["input_ids"])


def embed_tokens(parts: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Llama-like: words alone; positions are rotary."""
    return parts.embed_tokens(inputs["input_ids"])


def embed_gpt2(parts: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """GPT-2: words plus learned positions, then dropout."""
    ids = inputs["input_ids"]
    positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
    return parts.drop(parts.wte(ids) + parts.wpe(positions))


def class_token(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """ViT, DeiT: the class token."""
    return parts.classifier(parts.layernorm(hidden)[:, 0])


def class_token_and_mean(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """DINOv2: the class token beside the mean of the patches."""
    hidden = parts.layernorm(hidden)
    return parts.classifier(torch.cat([hidden[:, 0], hidden[:, 1:].mean(dim=1)], dim=1))


def pooled_patches(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """BEiT: its own pooler over the patches."""
    return parts.classifier(parts.pooler(parts.layernorm(hidden)))


def pooled_token(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """BERT: the pooled first token, then dropout."""
    return parts.classifier(parts.dropout(parts.pooler(hidden)))


def own_head(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """RoBERTa: a head that takes all tokens and picks the first itself."""
    return parts.classifier(hidden)


def first_token_through_relu(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """DistilBERT: a dense layer, ReLU and dropout on the first token."""
    return parts.classifier(parts.dropout(parts.pre_classifier(hidden[:, 0]).relu()))


def every_token(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """Language model: logits of every token, [B,T,V]."""
    return parts.lm_head(parts.norm(hidden))


def every_token_gpt2(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """GPT-2's language model: its norm has another name."""
    return parts.lm_head(parts.ln_f(hidden))


def last_token(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """Classifier of a decoder: the last valid token."""
    return parts.score(_last_valid(parts.norm(hidden), lengths))


def last_token_gpt2(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """GPT-2's classifier."""
    return parts.score(_last_valid(parts.ln_f(hidden), lengths))


def _last_valid(hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the last valid token of every row, [B,d]."""
    if lengths is None:
        return hidden[:, -1]
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths.to(hidden.device).long() - 1]
